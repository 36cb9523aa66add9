//! A program that is not a node. Start one first: `purlin start`, then
//! `purlin spawn counter --name hits`.

use purlin::kinds::Add;
use purlin_client::{Client, Credentials};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let home = purlin::Home::locate(None)?;
    let seed = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect([seed], Credentials::from_dir(home)?).await?;
    println!("hits: {}", client.call("hits", Add(5)).await?);
    client.close().await;
    Ok(())
}
