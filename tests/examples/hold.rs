use redlatch::Client;

#[tokio::main]
async fn main() -> Result<(), redlatch::Error> {
    let url = std::env::var("REDLATCH_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let client = Client::connect(&url).await?;
    let lease = client.mutex("orders/42")?.acquire().await?;

    // Send the fence with every write; stop when lease.lost() completes.
    println!("holding {} with fence {} for {:?}", lease.name(), lease.fence(), lease.remaining());

    lease.release().await
}
