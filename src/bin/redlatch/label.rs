//! Who asks for a lock, for people who inspect it.

use std::{ffi::OsStr, path::Path};

use nix::unistd::{Uid, User};

/// The longest label, in bytes.
const LONGEST: usize = 128;

/// A label from the command line.
pub fn parse(text: &str) -> Result<String, String> {
    if text.len() > LONGEST {
        return Err(format!("a label must be at most {LONGEST} bytes, this one has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// `user@host command`, with the name of the command alone: its arguments may be secrets.
pub fn of(command: &OsStr) -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = gethostname::gethostname();
    let command = Path::new(command).file_name().unwrap_or(command);
    bounded(format!("{user}@{} {}", host.to_string_lossy(), command.to_string_lossy()))
}

/// As much of `label` as may be sent.
fn bounded(mut label: String) -> String {
    let end = (0..=LONGEST).rev().find(|end| label.is_char_boundary(*end));
    label.truncate(end.unwrap_or_default());
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_too_long_is_cut_between_characters() {
        assert_eq!(bounded("a b".to_owned()), "a b");
        assert_eq!(bounded("a".repeat(129)).len(), 128);
        assert_eq!(bounded(format!("a{}", "\u{fc}".repeat(64))).len(), 127);
    }

    #[test]
    fn the_name_of_a_command_has_no_folder() {
        assert!(of("/usr/local/bin/nightly".as_ref()).ends_with(" nightly"));
        assert!(of("/".as_ref()).ends_with(" /"));
    }
}
