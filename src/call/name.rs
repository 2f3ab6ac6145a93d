//! What is protected, and the one key that stands for it.

use std::fmt;

use crate::Error;

/// The name of a protected resource: 1 to 512 bytes, any byte but NUL, CR and LF.
///
/// Braces keep their Redis Cluster meaning, so `{tenant-1}/orders` and `{tenant-1}/stock` live on one node.
///
/// ```
/// use redlatch::Name;
/// assert!(Name::new("orders/42").is_ok());
/// assert_eq!(Name::new("").unwrap_err().to_string(), "a lock name must be 1 to 512 bytes, this one has 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks the bytes of a name.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the length or a byte breaks the rule.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > 512 {
            return Err(Error::invalid(format!("a lock name must be 1 to 512 bytes, this one has {}", bytes.len())));
        }
        if let Some(at) = bytes.iter().position(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(Error::invalid(format!(
                "a lock name must not contain NUL, CR or LF, this one does at byte {at}"
            )));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes as they were given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The name in double quotes, with everything but printable ASCII escaped: safe for terminals and logs.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "\"{}\"", self.0.escape_ascii()),
        }
    }
}

/// Prefix of every key and channel that redlatch uses: 1 to 64 bytes of printable ASCII without spaces and colons. The
/// first colon of a key or channel ends it, so that no two namespaces have one in common.
///
/// ```
/// use redlatch::Namespace;
/// let error = Namespace::new("shop:eu").unwrap_err().to_string();
/// assert_eq!(error, "a namespace must not contain a colon, which ends it in every key: write shop-eu or shop.eu");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// Checks a namespace.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the length or a character breaks the rule.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("a namespace must be 1 to 64 printable ASCII characters without spaces"));
        }
        if text.contains(':') {
            let (dashed, dotted) = (text.replace(':', "-"), text.replace(':', "."));
            return Err(Error::invalid(format!(
                "a namespace must not contain a colon, which ends it in every key: write {dashed} or {dotted}"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key of the mutex called `name`: `<namespace>:m1:<name>`. `m` is the family, `1` the layout of the hash.
    ///
    /// ```
    /// use redlatch::{Name, Namespace};
    /// let key = Namespace::default().mutex_key(&Name::new("orders/42")?);
    /// assert_eq!(key, b"redlatch:m1:orders/42");
    /// # Ok::<(), redlatch::Error>(())
    /// ```
    pub fn mutex_key(&self, name: &Name) -> Vec<u8> {
        [self.0.as_bytes(), b":m1:", name.as_bytes()].concat()
    }
}

/// `redlatch`.
impl Default for Namespace {
    fn default() -> Self {
        Self("redlatch".to_owned())
    }
}
