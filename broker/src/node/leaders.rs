//! News of what this broker leads, for the brokers that host no replica of it.
//!
//! A change is told at once (those of the next moment along with it), and everything again every
//! second, since news may be lost and their receivers may have been away.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::peer::{LeaderNews, PeerBody};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Inner;

/// Tells the news until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let mut repeat = interval(REPEAT);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = repeat.tick() => tell(&node, &node.routes.led_here()),
            news = node.routes.news_to_tell() => {
                tell(&node, &news);
                sleep(GATHER).await;
            }
        }
    }
}

fn tell(node: &Inner, news: &[LeaderNews]) {
    for peer in node.outbox.connected() {
        for part in news.chunks(FRAME_NEWS_MAX) {
            // Lost news are told again.
            let _ = node.outbox.send(peer, PeerBody::Leaders(part.to_vec()));
        }
    }
}

const REPEAT: Duration = Duration::from_secs(1);
/// News of so short a time share a frame.
const GATHER: Duration = Duration::from_millis(5);
const FRAME_NEWS_MAX: usize = 2_000;
