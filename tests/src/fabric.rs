// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two namespaces with several links between them: the host side, where Holdfast runs,
//! and the storage side, where servers listen on one address per link.
//!
//! Faults of a link are real ones: the interface goes down, nftables drops packets on
//! arrival, or answers them with a reset. They are counted where the kernel counts
//! them, so a test can assert that a fault touched traffic (rule T6). Dropping happens on
//! the *input* hook of the far side: a drop on the sender's output hook is told to the
//! sender, which a real link never does.

use std::net::Ipv4Addr;

use crate::{Command, Endpoint, Namespace};

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// The interface is down: no carrier, no route.
    Down,
    /// Packets to the storage vanish.
    DropToStorage,
    /// Packets from the storage vanish.
    DropFromStorage,
    /// Every packet to the storage is answered with a TCP reset.
    Reset,
}

/// The links of one test.
#[derive(Debug)]
pub struct Fabric {
    host: Namespace,
    storage: Namespace,
    links: usize,
}

impl Fabric {
    /// Port the storage servers of [`Fabric::endpoint`] use.
    pub const PORT: u16 = 10809;

    /// Makes both sides with `links` links, all up.
    pub fn new(links: usize) -> Self {
        assert!((1..=100).contains(&links), "addresses are made from the link's number");
        let fabric = Self { host: Namespace::new(), storage: Namespace::new(), links };
        for link in 0..links {
            let far = fabric.storage.name();
            fabric.host.ip(&format!("link add p{link} type veth peer name p{link} netns {far}"));
            fabric.host.ip(&format!("addr add 10.77.{link}.1/24 dev p{link}"));
            fabric.storage.ip(&format!("addr add 10.77.{link}.2/24 dev p{link}"));
            fabric.host.ip(&format!("link set p{link} up"));
            fabric.storage.ip(&format!("link set p{link} up"));
        }
        for side in [&fabric.host, &fabric.storage] {
            side.nft("add table inet faults");
            side.nft("add chain inet faults input { type filter hook input priority 0; }");
            for link in 0..links {
                side.nft(&format!("add chain inet faults p{link}"));
                side.nft(&format!("add rule inet faults input iifname p{link} jump p{link}"));
            }
        }
        fabric
    }

    /// Where Holdfast runs.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// Where storage servers run.
    pub fn storage(&self) -> &Namespace {
        &self.storage
    }

    /// Storage-side address of a link.
    pub fn address(&self, link: usize) -> Ipv4Addr {
        assert!(link < self.links, "the fabric has {} links", self.links);
        Ipv4Addr::new(10, 77, u8::try_from(link).expect("checked when made"), 2)
    }

    /// Where the storage server of a link listens.
    pub fn endpoint(&self, link: usize) -> Endpoint {
        Endpoint::tcp(self.address(link), Self::PORT)
    }

    /// Breaks a link.
    pub fn inject(&self, link: usize, fault: LinkFault) {
        match fault {
            LinkFault::Down => {
                self.host.ip(&format!("link set p{link} down"));
            }
            LinkFault::DropToStorage => {
                self.storage.nft(&format!("add rule inet faults p{link} counter drop"));
            }
            LinkFault::DropFromStorage => {
                self.host.nft(&format!("add rule inet faults p{link} counter drop"));
            }
            LinkFault::Reset => {
                let rule = "ip protocol tcp counter reject with tcp reset";
                self.storage.nft(&format!("add rule inet faults p{link} {rule}"));
            }
        }
    }

    /// Ends all connections to the storage server of a link from the server's side, with a
    /// reset; the link itself stays well. What the server had not begun is gone.
    pub fn reset_connections(&self, link: usize) {
        let filter = format!("src {} and sport = :{}", self.address(link), Self::PORT);
        let output = Command::new("ss")
            .args(["-K", "-H", "-t", "-n", "state", "established", &filter])
            .within(&self.storage)
            .output();
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(listed.contains(&self.address(link).to_string()), "no connection was reset: {output:?}");
    }

    /// Mends a link.
    pub fn heal(&self, link: usize) {
        self.host.nft(&format!("flush chain inet faults p{link}"));
        self.storage.nft(&format!("flush chain inet faults p{link}"));
        self.host.ip(&format!("link set p{link} up"));
    }

    /// Packets that the present fault of a link has caught.
    pub fn caught_packets(&self, link: usize) -> u64 {
        [&self.host, &self.storage]
            .iter()
            .map(|side| counted_packets(&side.nft(&format!("list chain inet faults p{link}"))))
            .sum()
    }
}

/// Sum of all `counter packets N` of a chain's listing.
fn counted_packets(listing: &str) -> u64 {
    let words: Vec<&str> = listing.split_whitespace().collect();
    let numbers = words.windows(2).filter(|pair| pair[0] == "packets");
    numbers.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::{Fabric, LinkFault};

    /// A fault that does not bite would let every path-pull test pass for nothing.
    #[test]
    fn every_fault_stops_packets_and_heals() {
        let fabric = Fabric::new(2);
        let ping = |link: usize| {
            let address = fabric.address(link).to_string();
            let ping = crate::Command::new("bash")
                .args(["-c", &format!("timeout 1 bash -c '</dev/tcp/{address}/7' 2>&1")])
                .within(fabric.host())
                .output();
            String::from_utf8_lossy(&ping.stdout).into_owned()
        };
        // Nothing listens: a working link says so at once.
        assert!(ping(0).contains("refused"), "{}", ping(0));
        for fault in [LinkFault::Down, LinkFault::DropToStorage, LinkFault::DropFromStorage] {
            fabric.inject(0, fault);
            assert!(!ping(0).contains("refused"), "{fault:?} let packets through");
            assert!(ping(1).contains("refused"), "{fault:?} hit the other link");
            if fault != LinkFault::Down {
                assert!(fabric.caught_packets(0) > 0, "{fault:?} caught nothing");
            }
            fabric.heal(0);
            crate::wait::until_true("the link to work again", || ping(0).contains("refused"));
        }
        fabric.inject(0, LinkFault::Reset);
        assert!(ping(0).contains("refused"));
        assert!(fabric.caught_packets(0) > 0, "the reset rule caught nothing");
    }
}
