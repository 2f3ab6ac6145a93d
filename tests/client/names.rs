//! No two locks share a key, and no two tenants a key or a channel.

use proptest::prelude::*;
use redlatch::{ErrorKind, Name, Namespace};

fn namespaces() -> impl Strategy<Value = String> {
    // Everything that is accepted, and often what a key is put together with.
    prop_oneof!["[!-~]{1,12}", "[a:m1{}*]{1,8}", "(a|b|:m1:|:inbox:|:){1,4}"]
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 1..12), "(a|b|:m1:|:inbox:|:){1,5}".prop_map(String::into_bytes),]
}

proptest! {
    #[test]
    fn two_locks_never_share_a_key(one in (namespaces(), names()), two in (namespaces(), names())) {
        let key = |(namespace, name): &(String, Vec<u8>)| {
            Some(Namespace::new(namespace).ok()?.mutex_key(&Name::new(name).ok()?))
        };
        if let (Some(a), Some(b)) = (key(&one), key(&two)) {
            prop_assert_eq!(a == b, one == two);
        }
    }

    #[test]
    fn the_first_colon_of_a_key_ends_its_namespace(namespace in namespaces(), name in names()) {
        if let (Ok(accepted), Ok(name)) = (Namespace::new(&namespace), Name::new(name)) {
            let key = accepted.mutex_key(&name);
            let at = key.iter().position(|byte| *byte == b':').unwrap();
            prop_assert_eq!(&key[..at], namespace.as_bytes());
        }
    }
}

#[test]
fn a_namespace_with_a_colon_is_refused_before_anything_is_sent() {
    for namespace in ["a:b", ":", "a:m1:b", "a:", ":a"] {
        let error = Namespace::new(namespace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with("a namespace must not contain a colon, which ends it in every key"));
    }
}
