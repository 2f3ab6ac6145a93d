//! The rights of one namespace are none in another.

use redlatch::Client;

use crate::{
    cli::Cli,
    support::{Raw, Server},
};

/// The rules that the command line prints for callers of `namespace`.
fn rules(server: &Server, namespace: &str) -> Vec<String> {
    let text = Cli::at(&server.url(), &["--namespace", namespace, "acl", "print", "caller"]).must();
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_printed_rules_of_one_namespace_give_nothing_in_another() {
    let server = Server::start(&[]).unwrap();
    let mut admin = Raw::connect(&server);
    for (user, namespace) in [("a", "a"), ("b", "b"), ("glob", "a*"), ("set", "[ab]"), ("any", "?")] {
        let words = ["ACL", "SETUSER", user, "reset", "on", ">pw"].map(str::to_owned).into_iter();
        let words: Vec<String> = words.chain(rules(&server, namespace)).collect();
        admin.must::<()>(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let url = |user: &str| format!("{}?user={user}&pass=pw", server.url());
    let client = Client::builder().namespace("a").connect(&url("a")).await.unwrap();
    let held = client.mutex("n").unwrap().acquire().await.unwrap();
    let inbox = format!("a:inbox:{}", held.owner_token().split_once(':').unwrap().0);
    for user in ["b", "glob", "set", "any"] {
        let mut raw = Raw::open(&url(user));
        let digest = redlatch::bundle::embedded().unwrap().get("mutex/release").unwrap().digest();
        for command in [
            vec!["HGET", "a:m1:n", "state"],
            vec!["HSET", "a:m1:n", "state", "x"],
            vec!["EVALSHA", digest.as_str(), "1", "a:m1:n", held.owner_token()],
            vec!["PUBLISH", &inbox, "x 1 3000"],
            vec!["SUBSCRIBE", &inbox],
            vec!["SUBSCRIBE", "a:inbox:*"],
            vec!["EVAL", "return 1", "0"],
            vec!["SCRIPT", "FLUSH"],
        ] {
            let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            let error = raw.run(&words).expect_err("it is denied");
            assert_eq!(error.code(), Some("NOPERM"), "{user}: {command:?}: {error}");
        }
    }
    assert!(!held.is_lost());
    held.release().await.unwrap();
}
