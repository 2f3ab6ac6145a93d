//! Several locks at once.

use super::lease::Lease;
use super::lock::Lock;
use crate::Error;

/// Acquires every lock of `locks`; the leases are in the order of `locks`.
///
/// Whoever takes several locks by this function cannot deadlock with others that do: it acquires them in the order of
/// their keys, one after the other. Leases that were granted first are renewed meanwhile. Limit the wait with
/// [`tokio::time::timeout`].
///
/// ```
/// # redlatch::private_server::with_server(async |url| {
/// # let client = redlatch::Client::connect(&url).await?;
/// let accounts = [client.mutex("account/7")?, client.mutex("account/3")?];
/// let leases = redlatch::acquire_all(&accounts).await?;
/// assert_eq!(leases[1].name().as_bytes(), b"account/3");
/// for lease in leases {
///     lease.release().await?;
/// }
/// # Ok(()) });
/// ```
///
/// # Errors
///
/// As [`Lock::acquire`] of the first lock that fails; the others are given back in the background.
/// [`Invalid`](crate::ErrorKind::Invalid) when a lock is named twice, before anything is sent.
/// [`Lost`](crate::ErrorKind::Lost) when a lease was lost while the others were waited for.
///
/// # Cancel safety
///
/// When the future is dropped, what was acquired is given back in the background.
pub async fn acquire_all<F>(locks: &[Lock<F>]) -> Result<Vec<Lease<F>>, Error> {
    let mut order: Vec<usize> = (0..locks.len()).collect();
    order.sort_by_key(|&at| locks[at].key());
    if let Some(pair) = order.windows(2).find(|pair| locks[pair[0]].key() == locks[pair[1]].key()) {
        return Err(Error::invalid(format!("{} is named twice: it would wait for itself", locks[pair[0]].name())));
    }
    let mut granted = Vec::with_capacity(locks.len());
    for at in order {
        granted.push((at, locks[at].acquire().await?));
    }
    if let Some((_, lease)) = granted.iter().find(|(_, lease)| lease.is_lost()) {
        return Err(Error::lost(lease.name()));
    }
    granted.sort_by_key(|(at, _)| *at);
    Ok(granted.into_iter().map(|(_, lease)| lease).collect())
}
