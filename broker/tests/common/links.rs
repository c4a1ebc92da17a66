//! The network between brokers, in our hands: every pair speaks through a UDP relay of this process,
//! whose two directions can be cut and healed one by one.
//!
//! A relay passes datagrams on as they come; what is cut is dropped, as a broken cable does it:
//! nobody is told. Clients do not go through here.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Cluster, edit};

/// Relays between all brokers of a cluster; dropping them ends them.
pub struct Links {
    /// From the broker that dials to the one that is dialled.
    relays: BTreeMap<(usize, usize), Arc<Relay>>,
    threads: Vec<JoinHandle<()>>,
}

struct Relay {
    /// The dialling broker sends here.
    front: UdpSocket,
    /// Connected to the dialled broker.
    back: UdpSocket,
    /// Where the dialling broker was last heard from: a restart gives it another port.
    dialler: Mutex<Option<SocketAddr>>,
    there_is_cut: AtomicBool,
    back_is_cut: AtomicBool,
    ended: AtomicBool,
}

impl Links {
    /// Puts relays between the brokers of a cluster that has not been started.
    pub fn between(cluster: &Cluster) -> Links {
        let mut links = Links { relays: BTreeMap::new(), threads: Vec::new() };
        for (from, config) in (1..).zip(&cluster.created.configs) {
            for (to, address) in (1..).zip(&cluster.addresses) {
                if from == to {
                    continue;
                }
                let relay = Arc::new(Relay::to(*address).expect("the loopback has free ports"));
                let front = relay.front.local_addr().expect("it is bound");
                // In a broker's own file the others' addresses stand only where they are dialled.
                edit(config, &address.to_string(), &front.to_string());
                for run in [Relay::run_there, Relay::run_back] {
                    let relay = Arc::clone(&relay);
                    links.threads.push(std::thread::spawn(move || run(&relay)));
                }
                links.relays.insert((from, to), relay);
            }
        }
        links
    }

    /// From now on nothing gets from one broker to the other; the way back is as it was.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set(from, to, true);
    }

    /// From now on a broker hears of no other, and no other of it.
    pub fn isolate(&self, node: usize) {
        for other in self.others(node) {
            self.set(node, other, true);
            self.set(other, node, true);
        }
    }

    /// Makes everything pass again.
    pub fn heal(&self) {
        for relay in self.relays.values() {
            relay.there_is_cut.store(false, Ordering::Relaxed);
            relay.back_is_cut.store(false, Ordering::Relaxed);
        }
    }

    fn others(&self, node: usize) -> Vec<usize> {
        self.relays.keys().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect()
    }

    fn set(&self, from: usize, to: usize, cut: bool) {
        // Whoever of the two has dialled, either relay may carry this direction.
        self.relays[&(from, to)].there_is_cut.store(cut, Ordering::Relaxed);
        self.relays[&(to, from)].back_is_cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for relay in self.relays.values() {
            relay.ended.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A relay that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Relay {
    fn to(address: SocketAddr) -> io::Result<Relay> {
        let (front, back) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        back.connect(address)?;
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(LOOK_UP_EVERY))?;
            // The kernel gives what it allows; with less, bursts lose more.
            socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER_BYTES)?;
            socket2::SockRef::from(socket).set_send_buffer_size(BUFFER_BYTES)?;
        }
        Ok(Relay {
            front,
            back,
            dialler: Mutex::new(None),
            there_is_cut: AtomicBool::new(false),
            back_is_cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    fn run_there(&self) {
        let mut datagram = vec![0; 1 << 16];
        while !self.ended.load(Ordering::Relaxed) {
            // A timeout, or word that the far side is not there: UDP promises nothing.
            let Ok((bytes, from)) = self.front.recv_from(&mut datagram) else { continue };
            *self.dialler.lock().expect("nobody panics with it") = Some(from);
            if !self.there_is_cut.load(Ordering::Relaxed) {
                let _ = self.back.send(&datagram[..bytes]);
            }
        }
    }

    fn run_back(&self) {
        let mut datagram = vec![0; 1 << 16];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok(bytes) = self.back.recv(&mut datagram) else { continue };
            let dialler = *self.dialler.lock().expect("nobody panics with it");
            if let Some(dialler) = dialler.filter(|_| !self.back_is_cut.load(Ordering::Relaxed)) {
                let _ = self.front.send_to(&datagram[..bytes], dialler);
            }
        }
    }
}

const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 4 << 20;
