//! What servers of every version say when they refuse, and what becomes of it.

mod provoked;
pub mod said;

use std::time::Duration;

use redlatch::{
    Error, ErrorKind,
    bundle::{self, Script},
    call::{Caller, Endpoint},
};

use crate::support::{Fault, Proxy, Server};

const LIMIT: Duration = Duration::from_secs(20);

fn script(name: &str) -> &'static Script {
    bundle::embedded().unwrap().get(name).unwrap()
}

async fn caller(url: &str) -> Result<Caller, Error> {
    Caller::connect(&Endpoint::parse(url)?, LIMIT, true, |_| {}).await
}

/// Everything that a program can show of an error.
fn shown(error: &Error) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |source| source.source());
    format!("{error} {error:?} {}", sources.map(ToString::to_string).collect::<String>())
}

#[tokio::test]
async fn each_recorded_error_of_a_script_is_read_and_shows_nothing_of_what_was_sent() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    for said in said::all() {
        let caller = caller(&proxy.url()).await.unwrap();
        proxy.rule(move |command| command.is("EVALSHA").then_some(Fault::Refuse(said.text)));
        let error = caller.run(script("plain/release"), b"k", &[b"owner-token"]).await.unwrap_err();
        proxy.pass();
        let read = (error.code(), format!("{:?}", error.kind()));
        assert_eq!(read, (Some(said.code), said.kind.to_owned()), "{}", said.text);
        assert_eq!(said::forbidden(&error.to_string()), None, "{error} of {}", said.text);
        assert!(!shown(&error).contains("owner-token"), "{error:?}");
        assert!(error.to_string().split_once("): ").is_some_and(|(_, why)| !why.is_empty()), "{error}");
    }
}

#[tokio::test]
async fn no_recorded_error_of_a_login_shows_the_password() {
    let server = Server::start(&["--requirepass", "s3cret"]).unwrap();
    let proxy = Proxy::start(&server);
    let url = proxy.url().replace("redis://", "redis://default:s3cret@");
    let echoes = ["ERR cannot do HELLO 3 AUTH default s3cret", "HELLO 3 AUTH default s3cret", "s3cret"];
    for text in said::all().iter().map(|said| said.text).chain(echoes) {
        proxy.rule(move |command| {
            let logs_in = command.is("HELLO") || command.is("AUTH") || command.is("SELECT");
            logs_in.then_some(Fault::Refuse(text))
        });
        for url in [url.clone(), format!("{url}/3"), url.replace("default:", ":")] {
            let Err(error) = caller(&url).await else { continue };
            assert_eq!(said::forbidden(&shown(&error)), None, "{error:?} of {text}");
        }
    }
    assert!(proxy.bites() > 100);
}

#[tokio::test]
async fn an_error_of_several_calls_names_the_one_lock_or_counts_the_locks() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let caller = caller(&proxy.url()).await.unwrap();
    proxy.rule(|command| command.is("EVALSHA").then_some(Fault::Refuse("ERR no")));
    let script = script("plain/extend");
    let call = |key: &'static [u8]| (key, vec![b"owner-token".to_vec(), b"1000".to_vec()]);
    for (calls, what) in [(vec![call(b"a")], "\"a\""), (vec![call(b"a"), call(b"b")], "2 locks")] {
        for outcome in caller.run_each(script, &calls, LIMIT).await {
            assert_eq!(outcome.unwrap_err().to_string(), format!("plain/extend of {what} was refused (ERR): no"));
        }
    }
}

#[tokio::test]
async fn a_server_older_than_6_2_is_refused_with_one_sentence() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let said = "ERR wrong number of arguments for 'hello' command";
    proxy.rule(move |command| (command.is("HELLO") && command.len() == 1).then_some(Fault::Refuse(said)));
    let error = caller(&proxy.url()).await.err().unwrap();
    let address = proxy.url().replace("redis://", "");
    let sentence =
        format!("connecting to {address} was refused: redlatch needs Redis 6.2 or later, the server is older");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Refused, sentence));
}
