//! A lag alert: says when a group is too far behind, and tells one that is slow from one that does not move at all.
//!
//! `cargo run -p highwater-client --example lag_alert -- GROUP MAX SECONDS`, where MAX is in records of one partition;
//! it looks every so many seconds until Ctrl-C. For a script, `hw group lag GROUP --max N` looks once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use highwater_client::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let group = arguments.next().unwrap_or_else(|| "billing".into());
    let max = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10.0);
    let client = Client::from_profile(None).await?;
    let mut looks = tokio::time::interval(Duration::from_secs_f64(seconds));
    let mut before = BTreeMap::new();

    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = &mut stop => break,
        }
        let mut late = 0;
        for lag in client.admin().group_lag(&group).await? {
            let place = (lag.topic.clone(), lag.partition);
            let moves = before.insert(place, lag.committed) != Some(lag.committed);
            if lag.records() > max {
                late += 1;
                let how = if moves { "is slow" } else { "does not move" };
                let owner = lag.owner.as_deref().unwrap_or("nobody");
                let (topic, partition, behind) = (&lag.topic, lag.partition, lag.records());
                println!(
                    "ALERT {topic}/{partition} {how}: {behind} records behind, owned by {owner}"
                );
            }
        }
        if late == 0 {
            println!("fine: {group} is nowhere behind by more than {max}");
        }
    }
    client.close().await;
    Ok(())
}
