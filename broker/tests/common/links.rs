//! The network in our hands: every pair of brokers speaks through a UDP relay of this process, and so do
//! clients with each broker where a test wants it. Each direction has its own weather.
//!
//! A relay passes datagrams on as they come; what is cut is dropped, as a broken cable does it:
//! nobody is told.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::weather::{Way, Weather};
use super::{Cluster, edit};

/// Relays between all brokers of a cluster; dropping them ends them.
pub struct Links {
    /// From the broker that dials to the one that is dialled.
    relays: BTreeMap<(usize, usize), Arc<Relay>>,
    /// From clients to each broker.
    doors: BTreeMap<usize, Arc<Relay>>,
    threads: Vec<JoinHandle<()>>,
}

struct Relay {
    /// The dialling broker sends here.
    front: Arc<UdpSocket>,
    /// Connected to the dialled broker, which knows the dialling one by its port.
    back: Mutex<Arc<UdpSocket>>,
    address: SocketAddr,
    /// Where the dialling broker was last heard from: a restart gives it another port.
    dialler: Mutex<Option<SocketAddr>>,
    there: Mutex<Weather>,
    back_again: Mutex<Weather>,
    /// Datagrams that were lost or held back.
    touched: AtomicU64,
    ended: AtomicBool,
}

impl Links {
    /// Puts relays between the brokers of a cluster that has not been started.
    pub fn between(cluster: &Cluster) -> Links {
        let mut links =
            Links { relays: BTreeMap::new(), doors: BTreeMap::new(), threads: Vec::new() };
        for (from, config) in (1..).zip(&cluster.created.configs) {
            for (to, address) in (1..).zip(&cluster.addresses) {
                if from == to {
                    continue;
                }
                let relay = Arc::new(Relay::to(*address).expect("the loopback has free ports"));
                let front = relay.front.local_addr().expect("it is bound");
                // In a broker's own file the others' addresses stand only where they are dialled.
                edit(config, &address.to_string(), &front.to_string());
                links.run(&relay);
                links.relays.insert((from, to), relay);
            }
        }
        links
    }

    /// Puts relays before the brokers of a cluster that has not been started, for its clients.
    /// Comes after `between`: what brokers dial is written by then, and only what they are said to be reached at changes.
    pub fn and_clients(mut self, cluster: &Cluster) -> Links {
        let files = (1..).zip(cluster.created.configs.iter().zip(&cluster.addresses));
        for (node, (config, address)) in files {
            let relay = Arc::new(Relay::to(*address).expect("the loopback has free ports"));
            let front = relay.front.local_addr().expect("it is bound");
            edit(
                config,
                &format!("advertise = \"{address}\""),
                &format!("advertise = \"{front}\""),
            );
            edit(&cluster.created.profile, &address.to_string(), &front.to_string());
            self.run(&relay);
            self.doors.insert(node, relay);
        }
        self
    }

    /// From now on nothing gets from one broker to the other; the way back is as it was.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set(from, to, Weather::CUT);
    }

    /// From now on a broker hears of no other, and no other of it.
    pub fn isolate(&self, node: usize) {
        self.around(node, Weather::CUT);
    }

    /// The weather between a broker and all others, both ways.
    pub fn around(&self, node: usize, weather: Weather) {
        for other in self.others(node) {
            self.set(node, other, weather);
            self.set(other, node, weather);
        }
    }

    /// The weather between clients and a broker.
    pub fn at_door(&self, node: usize, weather: Weather) {
        self.doors[&node].set(weather);
    }

    /// Who dials a broker, or is dialled by it, comes from another port from now on, as behind a router
    /// that forgot whom it had let through; what is on its way to the old one is lost.
    pub fn rebind(&self, node: usize) {
        let between = self.relays.iter().filter(|((from, to), _)| *from == node || *to == node);
        for relay in between.map(|(_, relay)| relay).chain(self.doors.get(&node)) {
            let socket = socket_to(relay.address).expect("the loopback has free ports");
            *relay.back.lock().expect("nobody panics with it") = Arc::new(socket);
        }
    }

    /// Makes everything pass again.
    pub fn heal(&self) {
        for relay in self.relays.values().chain(self.doors.values()) {
            relay.set(Weather::default());
        }
    }

    /// How many datagrams were lost or held back.
    pub fn touched(&self) -> u64 {
        let relays = self.relays.values().chain(self.doors.values());
        relays.map(|relay| relay.touched.load(Ordering::Relaxed)).sum()
    }

    fn run(&mut self, relay: &Arc<Relay>) {
        for run in [Relay::run_there, Relay::run_back] {
            let relay = Arc::clone(relay);
            self.threads.push(std::thread::spawn(move || run(&relay)));
        }
    }

    fn others(&self, node: usize) -> Vec<usize> {
        self.relays.keys().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect()
    }

    fn set(&self, from: usize, to: usize, weather: Weather) {
        // Whoever of the two has dialled, either relay may carry this direction.
        *self.relays[&(from, to)].there.lock().expect("nobody panics with it") = weather;
        *self.relays[&(to, from)].back_again.lock().expect("nobody panics with it") = weather;
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for relay in self.relays.values().chain(self.doors.values()) {
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
        Ok(Relay {
            front: Arc::new(socket()?),
            back: Mutex::new(Arc::new(socket_to(address)?)),
            address,
            dialler: Mutex::new(None),
            there: Mutex::new(Weather::default()),
            back_again: Mutex::new(Weather::default()),
            touched: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    fn set(&self, weather: Weather) {
        *self.there.lock().expect("nobody panics with it") = weather;
        *self.back_again.lock().expect("nobody panics with it") = weather;
    }

    /// The socket to the dialled broker, as it is now.
    fn back(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.back.lock().expect("nobody panics with it"))
    }

    fn run_there(&self) {
        let front = Arc::clone(&self.front);
        self.carry(
            || Arc::clone(&front),
            &self.there,
            |from, datagram| {
                if let Some(from) = from {
                    *self.dialler.lock().expect("nobody panics with it") = Some(from);
                }
                // UDP promises nothing: the far side may not be there.
                let _ = datagram.map(|datagram| self.back().send(datagram));
            },
        );
    }

    fn run_back(&self) {
        self.carry(
            || self.back(),
            &self.back_again,
            |_, datagram| {
                let dialler = *self.dialler.lock().expect("nobody panics with it");
                let passed = dialler.zip(datagram);
                let _ = passed.map(|(dialler, datagram)| self.front.send_to(datagram, dialler));
            },
        );
    }

    /// Brings what comes in at a socket through the weather; `pass` hears who sent it, and gets what
    /// may go on.
    fn carry(
        &self,
        socket: impl Fn() -> Arc<UdpSocket>,
        weather: &Mutex<Weather>,
        pass: impl Fn(Option<SocketAddr>, Option<&[u8]>),
    ) {
        let seed = socket().local_addr().map_or(0, |address| u64::from(address.port()));
        let mut way = Way::new(seed);
        let mut datagram = vec![0; 1 << 16];
        while !self.ended.load(Ordering::Relaxed) {
            while let Some(due) = way.due() {
                pass(None, Some(&due));
            }
            let wait = way.wait().unwrap_or(LOOK_UP_EVERY).clamp(WAIT_MIN, LOOK_UP_EVERY);
            let socket = socket();
            // A socket that takes no time-out would only be looked up less often.
            let _ = socket.set_read_timeout(Some(wait));
            // A time-out, or word that the far side is not there.
            let Ok((bytes, from)) = socket.recv_from(&mut datagram) else { continue };
            let now = *weather.lock().expect("nobody panics with it");
            let passed = way.take(&now, &mut datagram[..bytes]);
            if passed.is_none() {
                self.touched.fetch_add(1, Ordering::Relaxed);
            }
            pass(Some(from), passed);
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LOOK_UP_EVERY))?;
    // The kernel gives what it allows; with less, bursts lose more.
    socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
    socket2::SockRef::from(&socket).set_send_buffer_size(BUFFER_BYTES)?;
    Ok(socket)
}

fn socket_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket()?;
    socket.connect(address)?;
    Ok(socket)
}

const WAIT_MIN: Duration = Duration::from_micros(200);
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 4 << 20;
