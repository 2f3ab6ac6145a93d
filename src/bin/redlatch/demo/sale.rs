//! One race for the stock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use redlatch::{Attempt, Client, call::Endpoint};
use serde_json::json;
use tokio::sync::Barrier;

use super::{DemoError, nginx::Nginx, report::Race};

/// How long a buyer takes to pay: the gap between reading and writing the stock.
const PAYING: Duration = Duration::from_millis(2);
/// How long a buyer waits for the lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stock and the orders, in Redis.
#[derive(Clone)]
pub struct Shop {
    client: Client,
    connection: redis::aio::MultiplexedConnection,
    settings: serde_json::Value,
    stock: String,
    orders: String,
    lock_key: Vec<u8>,
    version: String,
}

impl Shop {
    /// Opens the shop on the server of `endpoint`, with keys that start with `namespace`.
    pub async fn open(client: Client, endpoint: &Endpoint, namespace: &str) -> Result<Self, DemoError> {
        let failed = |error: redis::RedisError| DemoError::Buyer(error.to_string());
        let one = || DemoError::Buyer("the sale needs one server without TLS".to_owned());
        let info = endpoint.connection_info().ok_or_else(one)?;
        let redis = info.redis_settings();
        let mut connection = match info.addr() {
            redis::ConnectionAddr::Unix(path) => json!({ "socket": path }),
            redis::ConnectionAddr::Tcp(host, port) => json!({ "host": host, "port": port }),
            other => return Err(DemoError::Buyer(format!("no nginx buyers for {other}"))),
        };
        connection["username"] = json!(redis.username());
        connection["password"] = json!(redis.password());
        connection["database"] = json!(redis.db());
        connection["namespace"] = json!(namespace);
        if let Some(fields) = connection.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let (stock, orders) = (format!("{namespace}:stock"), format!("{namespace}:orders"));
        let mut plain = redis::Client::open(info.clone())
            .map_err(failed)?
            .get_multiplexed_async_connection()
            .await
            .map_err(failed)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut plain).await.map_err(failed)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("?").to_owned();
        let settings = json!({
            "connection": connection, "stock": stock, "orders": orders, "pay_seconds": PAYING.as_secs_f64(),
        });
        let lock_key = client.namespace().mutex_key(&redlatch::Name::new("item")?);
        Ok(Self { client, connection: plain, settings, stock, orders, lock_key, version })
    }

    pub fn settings_for_nginx(&self) -> serde_json::Value {
        self.settings.clone()
    }

    pub fn server_version(&self) -> &str {
        &self.version
    }

    async fn command<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, DemoError> {
        command.query_async(&mut self.connection.clone()).await.map_err(|error| DemoError::Buyer(error.to_string()))
    }

    async fn stock_up(&self, stock: u32) -> Result<(), DemoError> {
        self.command::<()>(redis::cmd("DEL").arg(&self.orders)).await?;
        self.command(redis::cmd("SET").arg(&self.stock).arg(stock)).await
    }

    async fn orders(&self) -> Result<Vec<String>, DemoError> {
        self.command(redis::cmd("LRANGE").arg(&self.orders).arg(0).arg(-1)).await
    }

    /// Reads the stock, pays, writes the stock: correct only when nobody else does so meanwhile.
    async fn buy(&self, fence: &str) -> Result<(), DemoError> {
        let stock: i64 = self.command(redis::cmd("GET").arg(&self.stock)).await?;
        if stock > 0 {
            tokio::time::sleep(PAYING).await;
            self.command::<()>(redis::cmd("SET").arg(&self.stock).arg(stock - 1)).await?;
            self.command::<()>(redis::cmd("RPUSH").arg(&self.orders).arg(fence)).await?;
        }
        Ok(())
    }

    /// Removes every key of the demo.
    pub async fn close(&self) -> Result<(), DemoError> {
        self.command(redis::cmd("DEL").arg(&self.stock).arg(&self.orders).arg(&self.lock_key)).await
    }
}

/// One race: all buyers start at once.
pub struct Sale<'a> {
    pub shop: &'a Shop,
    pub nginx: Option<&'a Nginx>,
    pub buyers: usize,
    pub stock: u32,
    pub locked: bool,
}

impl Sale<'_> {
    /// Runs the race and counts what was sold.
    pub async fn run(&self, progress: bool) -> Result<Race, DemoError> {
        self.shop.stock_up(self.stock).await?;
        let bar = if progress { ProgressBar::new(self.buyers as u64) } else { ProgressBar::hidden() };
        let title = if self.locked { "with the lock" } else { "without a lock" };
        let style = ProgressStyle::with_template("{prefix:>24} {bar:40} {pos}/{len} buyers").expect("a valid template");
        bar.set_style(style);
        bar.set_prefix(format!("stock {}, {title}", self.stock));

        let started = Instant::now();
        let start = Arc::new(Barrier::new(self.buyers));
        let buyers = (0..self.buyers).map(|number| {
            let (start, bar) = (Arc::clone(&start), bar.clone());
            async move {
                start.wait().await;
                let waited = match self.nginx {
                    Some(nginx) if number % 2 == 1 => self.buy_by_nginx(nginx).await,
                    _ => self.buy_by_rust().await,
                };
                bar.inc(1);
                waited
            }
        });
        let waits = futures_util::future::try_join_all(buyers).await?;
        bar.finish_and_clear();

        let orders = self.shop.orders().await?;
        let fences: Vec<u64> = orders.iter().filter_map(|fence| fence.parse().ok()).collect();
        Ok(Race {
            stock: self.stock,
            locked: self.locked,
            sold: orders.len(),
            oversold: orders.len().saturating_sub(self.stock as usize),
            fences_rise: fences.len() == orders.len() && fences.is_sorted_by(|a, b| a < b),
            fences,
            waits: if self.locked { waits } else { Vec::new() },
            took: started.elapsed(),
        })
    }

    async fn buy_by_rust(&self) -> Result<Duration, DemoError> {
        if !self.locked {
            self.shop.buy("none").await?;
            return Ok(Duration::ZERO);
        }
        let started = Instant::now();
        match self.shop.client.mutex("item")?.acquire_within(PATIENCE).await? {
            Attempt::Granted(lease) => {
                let waited = started.elapsed();
                self.shop.buy(&lease.fence().to_string()).await?;
                lease.release().await?;
                Ok(waited)
            }
            Attempt::Held(_) => Err(DemoError::Buyer(format!("a buyer waited for more than {PATIENCE:?}"))),
        }
    }

    async fn buy_by_nginx(&self, nginx: &Nginx) -> Result<Duration, DemoError> {
        let path = if self.locked { "/buy?locked=1" } else { "/buy" };
        let answer = nginx.get(path).await.map_err(|error| DemoError::Buyer(error.to_string()))?;
        match (answer["error"].as_str(), answer["waited_ms"].as_f64()) {
            (None, Some(waited_ms)) => Ok(Duration::from_secs_f64(waited_ms.max(0.0) / 1000.0)),
            (error, _) => Err(DemoError::Buyer(error.unwrap_or("an answer without waited_ms").to_owned())),
        }
    }
}
