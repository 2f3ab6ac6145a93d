//! Eighty buyers and a stock that must not be oversold, guarded by a lock that is no more than a key with a TTL.
//!
//! Users spread such a lock over several servers (Redlock); what is shown here goes wrong on every one of them. The
//! quorum is another matter and has no test here.

use redis::aio::MultiplexedConnection;
use redlatch::{Client, Fence};

use super::connect;
use crate::support::{Raw, Server};

const STOCK: u64 = 30;
const BUYERS: u64 = 80;

/// A till that refuses sales with an older fence than it has seen: the check that every fenced resource makes.
const SELL: &str = "
    if tonumber(redis.call('HGET', KEYS[1], 'fence') or 0) > tonumber(ARGV[1]) then return 0 end
    redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'stock', ARGV[2])
    redis.call('HINCRBY', KEYS[1], 'sold', 1)
    return 1";

async fn sell(till: &mut MultiplexedConnection, fence: Fence, left: u64) -> bool {
    redis::cmd("EVAL").arg(SELL).arg(1).arg("till").arg(fence.get()).arg(left).query_async(till).await.unwrap()
}

async fn stock(till: &mut MultiplexedConnection) -> u64 {
    let left: Option<u64> = redis::cmd("HGET").arg("till").arg("stock").query_async(till).await.unwrap();
    left.unwrap_or(STOCK)
}

#[tokio::test(flavor = "multi_thread")]
async fn eighty_buyers_buy_exactly_what_is_there() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let mut buyers = Vec::new();
    for _ in 0..BUYERS {
        let (lock, mut till) = (client.mutex("sale").unwrap(), connect(&server).await);
        buyers.push(tokio::spawn(async move {
            let lease = lock.acquire().await.unwrap();
            let left = stock(&mut till).await;
            let bought = left > 0 && sell(&mut till, lease.fence(), left - 1).await;
            lease.release().await.unwrap();
            bought
        }));
    }
    let mut bought = 0;
    for buyer in buyers {
        bought += u64::from(buyer.await.unwrap());
    }
    let mut raw = Raw::connect(&server);
    assert_eq!(bought, STOCK);
    assert_eq!(raw.must::<Vec<u64>>(&["HMGET", "till", "stock", "sold"]), [0, STOCK]);
}

#[tokio::test]
async fn a_buyer_that_comes_too_late_oversells_todays_stock_and_ours_refuses_its_fence() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    raw.must::<()>(&["SET", "stock", "1"]);
    raw.must::<()>(&["SET", "lock:sale", "slow", "PX", "10000", "NX"]);
    let slow: u64 = raw.must(&["GET", "stock"]);
    raw.must::<()>(&["PEXPIRE", "lock:sale", "0"]);
    raw.must::<()>(&["SET", "lock:sale", "quick", "PX", "10000", "NX"]);
    let quick: u64 = raw.must(&["GET", "stock"]);
    assert_eq!((slow, quick), (1, 1), "both see the last piece");
    raw.must::<()>(&["DECR", "stock"]);
    raw.must::<()>(&["DECR", "stock"]);
    assert_eq!(raw.must::<i64>(&["GET", "stock"]), -1, "sold twice");

    let (lock, mut till) = (client.mutex("sale").unwrap(), connect(&server).await);
    let slow = lock.acquire().await.unwrap();
    client.caller().force_release(b"redlatch:m1:sale").await.unwrap();
    let quick = lock.acquire().await.unwrap();
    assert!(sell(&mut till, quick.fence(), 0).await);
    assert!(!sell(&mut till, slow.fence(), 0).await, "the fence is older than that of the last sale");
    assert_eq!(raw.must::<u64>(&["HGET", "till", "sold"]), 1);
}
