//! stub
mod demo;
#[tokio::main]
async fn main() {
    let r = demo::run(demo::Plan {
        buyers: 80,
        stocks: vec![1, 50],
        url: std::env::var("REDLATCH_URL").ok(),
        progress: true,
    })
    .await;
    match r {
        Ok(r) => print!("{r}"),
        Err(e) => println!("{e}"),
    }
}
