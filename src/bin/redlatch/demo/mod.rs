//! The flash sale: buyers race for a stock, without a lock and with one.

mod nginx;
mod report;
mod sale;

use std::time::Duration;

use redlatch::doc::PrivateServer;
use redlatch::{Client, Error};

use report::Race;
pub use report::Report;
use sale::{Sale, Shop};

/// What the demo is to show.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Buyers in each race; half of them are Rust tasks, half are requests to nginx.
    pub buyers: usize,
    /// One race without and one with the lock for each of these stocks.
    pub stocks: Vec<u32>,
    /// The server to use instead of a private one.
    pub url: Option<String>,
    /// Whether to show progress on the terminal.
    pub progress: bool,
}

/// nginx workers that serve the other half of the buyers.
const WORKERS: usize = 2;

/// Runs every race of `plan`. Servers, folders and keys that it made are gone when it ends, also after Ctrl-C.
///
/// # Errors
///
/// When there is no server to use, a buyer fails, or the demo is interrupted.
pub async fn run(plan: Plan) -> Result<Report, DemoError> {
    let private = match &plan.url {
        Some(_) => None,
        None => Some(PrivateServer::start(&[]).map_err(DemoError::NoServer)?),
    };
    let url = match (&plan.url, &private) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.url(),
        (None, None) => unreachable!("without a URL there is a private server"),
    };
    let namespace = format!("redlatch-demo-{}", uuid::Uuid::new_v4().simple());
    let client =
        Client::builder().namespace(&namespace).ttl(Duration::from_secs(10)).label("flash sale").connect(&url).await?;
    let shop = Shop::open(client, &url, &namespace).await?;
    let nginx = nginx::Nginx::start(WORKERS, &shop.settings_for_nginx()).await;
    let (nginx, without_nginx) = match nginx {
        Ok(nginx) => (Some(nginx), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let outcome = tokio::select! {
        races = all_races(&plan, &shop, nginx.as_ref()) => races,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    drop(nginx);
    shop.close().await?;
    let races = outcome?;
    Ok(Report {
        buyers: plan.buyers,
        nginx_workers: if without_nginx.is_some() { 0 } else { WORKERS },
        without_nginx,
        server: shop.server_version().to_owned(),
        private_server: private.is_some(),
        races,
    })
}

async fn all_races(plan: &Plan, shop: &Shop, nginx: Option<&nginx::Nginx>) -> Result<Vec<Race>, DemoError> {
    let mut races = Vec::new();
    for &stock in &plan.stocks {
        for locked in [false, true] {
            let sale = Sale { shop, nginx, buyers: plan.buyers, stock, locked };
            races.push(sale.run(plan.progress).await?);
        }
    }
    Ok(races)
}

/// Completes when somebody wants the demo to end.
async fn interrupted() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminate = async {
        match &mut terminate {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no redis-server to start.
    #[error("cannot start redis-server ({0}): install it (Debian: apt-get install redis-server) or give --url")]
    NoServer(std::io::Error),
    /// A Redis call failed.
    #[error(transparent)]
    Lock(#[from] Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted: everything that the demo made is gone again")]
    Interrupted,
    /// An nginx request failed.
    #[error("an nginx buyer failed: {0}")]
    Nginx(String),
}
