//! What -v tells people on stderr about what happens, in the order in which it happens.

use redlatch::call::Caller;

use crate::{opt::Global, output::quoted, output::say, product::Hello};

impl Global {
    /// Tells it with -v.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.verbose > 0 {
            say(&text());
        }
    }

    /// Tells it with -vv.
    pub fn tell_more(&self, text: impl FnOnce() -> String) {
        if self.verbose > 1 {
            say(&text());
        }
    }

    /// Tells what `caller` is connected to, and as whom. Asks for that only when it is told.
    pub async fn tell_of_server(&self, caller: &Caller) {
        if self.verbose == 0 {
            return;
        }
        let hello = Hello::of(caller).await.ok().and_then(|hello| hello.product);
        let product = hello.map_or_else(|| "a server".to_owned(), |product| product.to_string());
        let meant = caller.endpoint().to_string();
        let place = match caller.address() {
            None => format!("the cluster of {meant}"),
            Some(address) if address == meant => address,
            Some(address) => format!("{address}, {meant}"),
        };
        let user = caller.endpoint().user();
        let user = if user == "default" { String::new() } else { format!(" as {}", quoted(user.as_bytes())) };
        say(&format!("connected to {product} at {place}{user}"));
    }
}
