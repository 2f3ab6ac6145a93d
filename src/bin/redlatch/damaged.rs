//! Keys of the namespace that hold what no script of redlatch writes.

use redlatch::{Error, ErrorKind};

use crate::{
    outcome::{Cause, Failure},
    output::quoted,
};

const WHAT: &str = "it holds what no script of redlatch writes";
const REMEDY: &str = "once nobody works under this lock, delete the key (redis-cli DEL); or use another name";

/// A script that fails by itself has met data that it cannot read.
fn is_of_the_script(error: &Error) -> bool {
    error.code() == Some("ERR") && error.to_string().contains("user_script")
}

/// The failure of a call that met one, instead of the words of Lua.
pub fn by_call(error: &Error) -> Option<Failure> {
    let text = error.to_string();
    let call = text.split(" was refused").next()?;
    is_of_the_script(error)
        .then(|| Failure::new(Cause::Configuration, format!("{call} failed: the key is damaged, {WHAT}")).hint(REMEDY))
}

/// The same for who has looked at `key`, where a reply of strange numbers says it as well.
pub fn by_look(key: &[u8], error: Error) -> Failure {
    if is_damage(&error) {
        return Failure::new(Cause::Configuration, format!("the key {} is damaged: {WHAT}", quoted(key))).hint(REMEDY);
    }
    error.into()
}

/// Whether that is what went wrong.
pub fn is_damage(error: &Error) -> bool {
    is_of_the_script(error) || error.kind() == ErrorKind::Protocol
}
