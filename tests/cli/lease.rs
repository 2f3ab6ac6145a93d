//! Verbs about leases that outlive the program: acquire, extend, release, inspect.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use redlatch::Client;

use super::{Cli, HOLDER, answer, assert_fails, blurred, folder, hold, is_held, until, waiters};
use crate::support::{Raw, Server};

#[test]
fn a_lease_is_extended_and_released_by_other_processes_with_the_owner_file() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = folder.path().join("owner");
    let file = file.to_str().unwrap();
    let acquired = Cli::on(&server, &["acquire", "stock", "--owner-file", file]).answer();
    let fence = acquired.stdout.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(acquired, answer(0, &format!("acquired \"stock\" for 10s, fence {fence}\n"), ""));
    assert_eq!(
        Cli::on(&server, &["extend", "stock", "--owner-file", file, "--ttl", "1h"]).answer(),
        answer(0, &format!("extended \"stock\" for 1h, fence {fence}\n"), "")
    );
    assert!(is_held(&server, "stock"));
    let release = || Cli::on(&server, &["release", "stock", "--owner-file", file]).answer();
    assert_eq!(release(), answer(0, "released \"stock\"\n", ""));
    assert!(!is_held(&server, "stock"));
    assert_eq!(release(), answer(0, "\"stock\" was released before\n", ""));
}

#[test]
fn the_owner_token_is_in_the_file_for_its_owner_only_and_in_no_output() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = folder.path().join("owner");
    let path = file.to_str().unwrap();
    let words = ["acquire", "stock", "--owner-file", path, "--format", "json", "-vvv"];
    let acquired = Cli::on(&server, &words).answer();
    let text = fs::read_to_string(&file).unwrap();
    let token = serde_json::from_str::<serde_json::Value>(&text).unwrap()["owner"].as_str().unwrap().to_owned();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(acquired.status, 0);
    assert!(!acquired.stdout.contains(&token) && !acquired.stderr.contains(&token), "{acquired:?}");
    assert_eq!(Raw::connect(&server).lock("redlatch:m1:stock").holder(), token);
}

#[test]
fn json_carries_the_owner_token_when_there_is_no_file() {
    let server = Server::start(&[]).unwrap();
    let text = Cli::on(&server, &["acquire", "stock", "--format", "json"]).must();
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lock = Raw::connect(&server).lock("redlatch:m1:stock");
    let (owner, fence) = (lock.holder(), lock.fence.to_string());
    assert_eq!(
        object,
        serde_json::json!({
            "format_version": 1, "command": "acquire", "ok": true, "exit_code": 0, "errors": [],
            "data": {
                "name": "stock", "name_base64": null, "held": true, "fence": fence, "ttl_ms": 10_000,
                "namespace": "redlatch", "owner": owner,
            },
        })
    );
}

#[test]
fn without_a_place_for_the_owner_token_nothing_is_acquired() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    assert_eq!(
        Cli::on(&server, &["acquire", "stock"]).answer(),
        answer(
            2,
            "",
            "redlatch: nothing would know the owner token, so nobody could release the lease\n  \
             hint: add --owner-file FILE or --format json\n"
        )
    );
    let nowhere = folder.path().join("nowhere/owner");
    let nowhere = nowhere.to_str().unwrap();
    let refused = Cli::on(&server, &["acquire", "stock", "--owner-file", nowhere]).answer();
    assert_eq!((refused.status, refused.stdout.as_str()), (78, ""));
    assert!(refused.stderr.starts_with(&format!("redlatch: \"{nowhere}\" cannot be written: ")), "{refused:?}");
    let this = folder.path().to_str().unwrap();
    assert_fails(
        &server.url(),
        &["acquire", "stock", "--owner-file", this],
        &answer(78, "", &format!("redlatch: \"{this}\" is a folder, name a file in it\n")),
        &[("configuration", "")],
    );
    assert!(!Raw::connect(&server).must::<bool>(&["EXISTS", "redlatch:m1:stock"]));
}

#[test]
fn a_refused_acquire_leaves_the_owner_file_of_the_holder_alone() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "stock", folder.path());
    let before = fs::read(&file).unwrap();
    for wait in [&[][..], &["--wait", "50ms"], &["--wait", "0s"]] {
        let words = [&["acquire", "stock", "--owner-file", &file][..], wait].concat();
        let expected = format!("redlatch: \"stock\" is held by \"{HOLDER}\", #m #s left of its lease\n");
        assert_fails(&server.url(), &words, &answer(75, "", &expected), &[("held", "")]);
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(Cli::on(&server, &["release", "stock", "--owner-file", &file]).answer().status, 0);
}

#[test]
fn a_waiting_acquire_gets_its_whole_ttl_from_the_hand_off() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let first = hold(&server, "stock", folder.path());
    let second = folder.path().join("second");
    let second = second.to_str().unwrap();
    let waiting =
        Cli::on(&server, &["acquire", "stock", "--ttl", "2h", "--wait", "10m", "--owner-file", second]).start();
    until("the second one waits", || waiters(&server, "stock") == 1);
    assert_eq!(
        Cli::on(&server, &["release", "stock", "--owner-file", &first]).answer(),
        answer(0, "released \"stock\", the next waiter has it\n", "")
    );
    assert_eq!(waiting.answer().status, 0);
    let view = inspected(&server);
    assert!(view["data"]["remaining_ms"].as_u64().unwrap() > 7_000_000, "{view}");
}

#[test]
fn a_lost_lease_is_neither_extended_nor_released() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "stock", folder.path());
    Raw::connect(&server).must::<()>(&["DEL", "redlatch:m1:stock"]);
    let lost = "redlatch: lease of \"stock\" is lost: it ran out or was taken away, stop the work that relied on it\n";
    for verb in ["extend", "release"] {
        let node = server.socket().display().to_string();
        let words = [verb, "stock", "--owner-file", &file];
        assert_fails(&server.url(), &words, &answer(76, "", lost), &[("lost", &node)]);
    }
    assert!(!Raw::connect(&server).must::<bool>(&["EXISTS", "redlatch:m1:stock"]));
}

#[test]
fn an_owner_file_without_a_token_is_refused_before_anything_is_sent() {
    let folder = folder();
    let file = folder.path().join("owner");
    let path = file.to_str().unwrap();
    let refused = |stderr: &str| {
        let words = ["release", "stock", "--owner-file", path];
        assert_fails("unix:///nowhere", &words, &answer(78, "", stderr), &[("configuration", "")]);
    };
    refused(&format!("redlatch: \"{path}\" cannot be read: No such file or directory (os error 2)\n"));
    let useless = format!(
        "redlatch: \"{path}\" holds no owner token\n  \
         hint: name the file that `redlatch acquire --owner-file` wrote\n"
    );
    let lease = |owner: &str, ttl: &str| {
        format!(
            "{{\"name\":\"stock\",\"name_base64\":null,\"namespace\":\"redlatch\",\"ttl_ms\":{ttl},\"owner\":\"{owner}\"}}"
        )
    };
    let (long, no_ttl) = (lease(&"x".repeat(129), "1"), lease("x:1", "null"));
    for content in ["", "\n", "x:1\n", "{}", &lease("", "1"), &lease("two words", "1"), &long, &no_ttl] {
        fs::write(&file, content).unwrap();
        refused(&useless);
    }
}

#[test]
fn extend_without_a_ttl_asks_for_the_length_that_was_acquired() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = folder.path().join("owner");
    let file = file.to_str().unwrap();
    Cli::on(&server, &["acquire", "stock", "--ttl", "2h", "--owner-file", file]).must();
    let extended = Cli::on(&server, &["extend", "stock", "--owner-file", file]).must();
    assert!(extended.starts_with("extended \"stock\" for 2h, "), "{extended}");
}

#[test]
fn an_owner_file_of_another_lock_is_a_mistake_and_no_loss() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let (file, other) = (hold(&server, "stock", folder.path()), hold(&server, "other", folder.path()));
    for verb in ["extend", "release"] {
        let told = format!("redlatch: {other:?} is the owner file of \"other\", not of \"stock\"; nothing was done\n");
        let words = [verb, "stock", "--owner-file", &other];
        assert_fails(&server.url(), &words, &answer(78, "", &told), &[("configuration", "")]);
        let told = format!(
            "redlatch: {file:?} is the owner file of \"stock\" in the namespace \"redlatch\", not of \"stock\" in the \
             namespace \"shop\"; nothing was done\n"
        );
        let words = [verb, "stock", "--namespace", "shop", "--owner-file", &file];
        assert_fails(&server.url(), &words, &answer(78, "", &told), &[("configuration", "")]);
    }
    assert!(is_held(&server, "stock") && is_held(&server, "other"));
}

#[test]
fn what_acquire_prints_as_json_is_an_owner_file() {
    use std::os::unix::ffi::OsStrExt;
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = folder.path().join("owner");
    let file = file.to_str().unwrap();
    for form in ["json", "jsonl"] {
        for name in [&b"stock"[..], b"no text \xff"] {
            let on = |words: &[&str]| {
                let mut cli = Cli::on(&server, words);
                cli.command.arg(std::ffi::OsStr::from_bytes(name));
                cli.must()
            };
            fs::write(file, on(&["acquire", "--format", form])).unwrap();
            on(&["extend", "--owner-file", file]);
            on(&["release", "--owner-file", file]);
        }
    }
}

#[test]
fn a_label_says_who_holds_and_who_waits() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let holder = |words: &[&str]| {
        Cli::on(&server, &[&["acquire", "stock", "--format", "json"][..], words].concat()).must();
        let told = inspected(&server)["data"]["holder"].as_str().unwrap().to_owned();
        Cli::on(&server, &["force-release", "stock", "--yes", "--reason", "a test"]).must();
        told
    };
    assert_eq!(holder(&["--label", "nightly backup, ask Ada"]), "nightly backup, ask Ada");
    assert_eq!(holder(&["--label", &"x".repeat(128)]), "x".repeat(128));
    let ours = holder(&[]);
    let (user, rest) = ours.split_once('@').unwrap();
    assert!(!user.is_empty() && rest.ends_with(" redlatch acquire"), "{ours}");
    let too_long = Cli::on(&server, &["acquire", "stock", "--format", "json", "--label", &"x".repeat(129)]).answer();
    assert_eq!(too_long.status, 2, "{too_long:?}");
    // The name of the command, and not its arguments.
    let script = "redlatch=$0; $redlatch inspect stock | grep holder";
    let words = ["run", "stock", "--", "/bin/sh", "-c", script, env!("CARGO_BIN_EXE_redlatch"), "s3cret"];
    let shown = Cli::on(&server, &words).must();
    assert_eq!(shown, format!("holder        {} sh\n", ours.trim_end_matches(" redlatch acquire")));
    // A hand-off keeps the label of who waited.
    let first = hold(&server, "stock", folder.path());
    let waiting = Cli::on(&server, &["run", "stock", "--label", "next", "--", "sh", "-c", script, words[6]]).start();
    until("it waits", || waiters(&server, "stock") == 1);
    assert_eq!(inspected(&server)["data"]["waiters"][0]["label"], "next");
    Cli::on(&server, &["release", "stock", "--owner-file", &first]).must();
    assert_eq!(waiting.answer(), answer(0, "holder        next\n", ""));
}

#[test]
fn inspect_tells_that_nobody_holds_the_lock() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    assert_eq!(
        Cli::on(&server, &["inspect", "stock"]).answer(),
        answer(1, "name          stock\nstate         free\nwaiters       0\n", "")
    );
    let file = hold(&server, "stock", folder.path());
    Cli::on(&server, &["release", "stock", "--owner-file", &file]).must();
    let view = Cli::on(&server, &["inspect", "stock"]).answer();
    assert_eq!(view.status, 1);
    let words: Vec<_> = view.stdout.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(words, ["name", "state", "last held by", "since", "fence", "waiters"]);
}

#[tokio::test]
async fn inspect_shows_holder_and_waiters_in_order_and_obeys_no_label() {
    let server = Server::start(&[]).unwrap();
    let connect = async |label| Client::builder().label(label).connect(&server.url()).await.unwrap();
    let (holder, first, second) =
        (connect("web-1/17").await, connect("web-2/4").await, connect("\x1b[31mevil\u{202e}\n").await);
    let lease = holder.mutex("stock").unwrap().ttl(Duration::from_secs(3600)).unwrap().acquire().await.unwrap();
    for (number, client) in [(1, first), (2, second)] {
        let lock = client.mutex("stock").unwrap();
        tokio::spawn(async move { lock.acquire().await.map(|_| ()) });
        while holder.caller().inspect(b"redlatch:m1:stock", 0).await.unwrap().places < number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let view = tokio::task::spawn_blocking({
        let url = server.url();
        move || Cli::at(&url, &["inspect", "stock"]).must()
    })
    .await
    .unwrap();
    let mut lines = view.lines();
    assert_eq!(lines.next(), Some("name          stock"));
    assert_eq!(lines.next(), Some("state         held"));
    assert_eq!(lines.next(), Some("holder        web-1/17"));
    assert!(blurred(lines.next().unwrap()).starts_with("since         #-#-#T#:#:#Z ("));
    assert_eq!(lines.next().unwrap(), format!("fence         {}", lease.fence()));
    assert_eq!(blurred(lines.next().unwrap()), "remaining     #m #s");
    assert_eq!(lines.next(), Some("waiters       2"));
    assert_eq!(lines.next(), Some(""));
    assert_eq!(lines.next().unwrap().split_whitespace().collect::<Vec<_>>(), ["#", "WAITED", "ALIVE", "FOR", "WAITER"]);
    assert!(lines.next().unwrap().ends_with("  web-2/4"));
    assert!(lines.next().unwrap().ends_with("  \\u{1b}[31mevil\\u{202e}\\n"));
    assert_eq!(lines.next(), None);
}

#[test]
fn inspect_counts_the_waiters_that_are_there_and_says_when_there_may_be_more() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "stock", folder.path());
    let waiting = |number| {
        let running = Cli::on(&server, &["run", "stock", "--", "true"]).start();
        until("it waits", || waiters(&server, "stock") == number);
        running
    };
    let [_first, second, _third] = [waiting(1), waiting(2), waiting(3)];
    second.signal("TERM");
    second.answer();
    let count = |words: &[&str]| {
        let view = Cli::on(&server, &[&["inspect", "stock"], words].concat()).must();
        view.lines().find_map(|line| Some(line.strip_prefix("waiters       ")?.to_owned())).unwrap()
    };
    assert_eq!(count(&[]), "2");
    assert_eq!(count(&["--waiters", "3"]), "2");
    assert_eq!(count(&["--waiters", "1"]), "3 at most, 1 shown, see --waiters");
}

#[test]
fn force_release_needs_a_yes_and_hands_the_lock_on_with_a_higher_fence() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let first = hold(&server, "stock", folder.path());
    let second = folder.path().join("second");
    let words = ["acquire", "stock", "--ttl", "1h", "--wait", "10m", "--owner-file", second.to_str().unwrap()];
    let waiting = Cli::on(&server, &words).start();
    until("the second one waits", || waiters(&server, "stock") == 1);
    let before = inspected(&server);
    let holder = before["data"]["holder"].as_str().unwrap();
    let words = ["force-release", "stock", "--reason", "hung\x1b"];
    let expected = format!(
        "redlatch: \"stock\" is held by \"{holder}\", which may be at work\n  \
         hint: say --yes when it is gone, or when the resource refuses old fences\n"
    );
    assert_fails(&server.url(), &words, &answer(2, "", &expected), &[("usage", "")]);
    let forced = Cli::on(&server, &[&words[..], &["--yes"]].concat()).answer();
    let granted = waiting.answer();
    let fence = granted.stdout.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(
        forced,
        answer(
            0,
            &format!(
                "ended the lease of \"{holder}\" on \"stock\": hung\\u{{1b}}; the next waiter has it with fence {fence}\n"
            ),
            ""
        )
    );
    assert!(fence > before["data"]["fence"].as_str().unwrap());
    assert_eq!(Cli::on(&server, &["extend", "stock", "--owner-file", &first]).answer().status, 76);
}

#[test]
fn inspect_follows_a_lock_until_it_is_told_to_stop() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let following = Cli::on(&server, &["inspect", "stock", "--follow", "--format", "jsonl"]).start();
    let seen = |count: usize| until("it is shown", || following.stdout().lines().count() == count);
    seen(1);
    let owner = hold(&server, "stock", folder.path());
    seen(2);
    Cli::on(&server, &["release", "stock", "--owner-file", &owner]).must();
    seen(3);
    following.signal("INT");
    let told = following.answer();
    assert_eq!((told.status, told.stderr.as_str()), (0, ""));
    let held: Vec<_> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["held"].as_bool().unwrap())
        .collect();
    assert_eq!(held, [false, true, false]);
    let following = Cli::on(&server, &["inspect", "stock", "-f"]).start();
    until("it is shown", || following.stdout().contains("state         free\n"));
    following.signal("TERM");
    assert_eq!(following.answer().status, 0);
}

#[test]
fn what_follows_a_lock_ends_when_nobody_reads_any_more() {
    let server = Server::start(&[]).unwrap();
    for words in [&["inspect", "-f", "stock"][..], &["ls", "-f"], &["ls", "--follow", "--format", "jsonl"]] {
        let mut cli = Cli::on(&server, words);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut process = cli.command.stdout(writer).spawn().unwrap();
        drop(cli);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line).unwrap();
        assert_ne!(line, "");
        until("it ends although nothing happens to the lock", || process.try_wait().unwrap().is_some());
        assert!(process.wait().unwrap().success());
    }
}

#[test]
fn ls_follows_the_locks() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let following = Cli::on(&server, &["ls", "--follow"]).start();
    until("there is none", || following.stdout() == "0 locks\n");
    let owner = hold(&server, "stock", folder.path());
    until("there is one", || following.stdout().contains("\n\n1 lock\nNAME "));
    Cli::on(&server, &["release", "stock", "--owner-file", &owner]).must();
    until("there is none again", || following.stdout().ends_with("\n\n0 locks\n"));
    following.signal("INT");
    assert_eq!(following.answer().status, 0);
}

#[test]
fn force_release_of_a_free_lock_is_1() {
    let server = Server::start(&[]).unwrap();
    assert_eq!(
        Cli::on(&server, &["force-release", "stock", "--yes", "--reason", "x"]).answer(),
        answer(1, "\"stock\" is not held\n", "")
    );
}

#[test]
fn ls_finds_the_held_locks_of_its_namespace_and_nothing_else() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let list = |words: &[&str]| Cli::on(&server, &[&["ls"][..], words].concat()).answer();
    assert_eq!(list(&[]), answer(0, "", "redlatch: no lock is held\n"));
    let mut raw = Raw::connect(&server);
    for number in 0..2000 {
        raw.must::<()>(&["SET", &format!("noise:{number}"), "x"]);
    }
    raw.must::<()>(&["SET", "redlatch:m1:text", "x"]);
    raw.must::<()>(&["SET", "redlatchXm1:other", "x"]);
    let file = hold(&server, "free", folder.path());
    Cli::on(&server, &["release", "free", "--owner-file", &file]).must();
    for name in ["orders-1", "orders-2", "evil\x1b"] {
        hold(&server, name, folder.path());
    }
    let names = |answer: super::Answer| -> Vec<String> {
        answer.stdout.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let all = list(&[]);
    assert_eq!((all.status, all.stderr.as_str()), (0, "redlatch: keys of this namespace that are not locks: 1\n"));
    assert_eq!(names(all), ["NAME", "evil\\u{1b}", "orders-1", "orders-2"]);
    assert_eq!(names(list(&["orders-?"])), ["NAME", "orders-1", "orders-2"]);
    assert_eq!(names(list(&["--all", "[fo]*"])), ["NAME", "free", "orders-1", "orders-2"]);
    let cut = list(&["orders-*", "--limit", "1"]);
    assert_eq!(cut.stderr, "redlatch: there are more than 1, see --limit\n");
    assert_eq!(names(cut), ["NAME", "orders-1"]);
    assert_eq!(list(&["--namespace", "redlatc?"]), answer(0, "", "redlatch: no lock is held\n"));
}

#[test]
fn one_damaged_key_hides_no_other_lock() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "stock", folder.path());
    // Too short to be read, and long enough to be nonsense.
    for nonsense in ["abc".to_owned(), "x".repeat(120)] {
        Raw::connect(&server).must::<i64>(&["HSET", "redlatch:m1:cut", "state", &nonsense]);
        let told = "redlatch: the key \"redlatch:m1:cut\" is damaged: it holds what no script of redlatch writes\n  \
                    hint: once nobody works under this lock, delete the key (redis-cli DEL); or use another name\n";
        let listed = Cli::on(&server, &["ls"]).answer();
        assert_eq!((listed.status, listed.stderr.as_str()), (75, told));
        assert!(listed.stdout.contains("stock"), "{listed:?}");
        assert_eq!(Cli::on(&server, &["inspect", "cut"]).answer(), answer(78, "", told));
    }
    Raw::connect(&server).must::<i64>(&["HSET", "redlatch:m1:cut", "state", "abc"]);
    let refused = Cli::on(&server, &["run", "cut", "-n", "--", "true"]).answer();
    assert!(refused.status == 78 && refused.stderr.contains("the key is damaged"), "{refused:?}");
    assert!(!refused.stderr.contains("user_script"), "{refused:?}");
    assert_eq!(Cli::on(&server, &["ls", "--limit", "0"]).answer().status, 2);
}

#[test]
fn a_namespace_is_another_world() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "stock", folder.path());
    assert_eq!(Cli::on(&server, &["inspect", "stock", "--namespace", "shop"]).answer().status, 1);
    Cli::on(&server, &["acquire", "stock", "--namespace", "shop", "--format", "json"]).must();
    assert!(Raw::connect(&server).must::<bool>(&["EXISTS", "shop:m1:stock"]));
}

fn inspected(server: &Server) -> serde_json::Value {
    let answer = Cli::on(server, &["inspect", "stock", "--format", "json"]).answer();
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn quiet_verbs_tell_nothing_that_went_well() {
    let server = Server::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("owner").display().to_string();
    for verb in [
        &["acquire", "n", "--owner-file", &file][..],
        &["extend", "n", "--owner-file", &file],
        &["release", "n", "--owner-file", &file],
        &["load"],
        &["verify"],
    ] {
        let answer = Cli::on(&server, &[verb, &["-q"]].concat()).answer();
        assert_eq!((answer.status, &*answer.stdout, &*answer.stderr), (0, "", ""), "{verb:?}");
    }
}
