//! Network namespaces, one a node, joined by a bridge in the leader's; partitions and slow links between them.
//!
//! A partition is a neighbour entry with a hardware address that nobody has: what is sent that way is lost without a
//! word, as on a real network, and each direction has its own entry. Everything lives inside the namespaces and goes
//! with them.

use crate::schedule::{Node, Random};
use crate::tool;
use std::path::Path;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
const NOBODY: &str = "02:00:00:00:de:ad";

/// The namespaces of one run; dropping it removes them.
pub(crate) struct Network {
    prefix: String,
    /// Whether the kernel has netem. tbf, a bottleneck with a short queue, stands in for it.
    netem: bool,
}

impl Network {
    /// Makes the namespaces. `prefix` begins their names.
    pub(crate) fn new(prefix: &str) -> Result<Network, String> {
        // From here on dropping it cleans up, also half-made.
        let mut network = Network { prefix: prefix.to_owned(), netem: true };
        let leader = network.name(Node::Leader);
        tool::run(&format!("ip netns add {leader}"))?;
        tool::run(&format!("ip -n {leader} link set lo up"))?;
        tool::run(&format!("ip -n {leader} link add br0 type bridge"))?;
        tool::run(&format!("ip -n {leader} addr add {}/24 dev br0", address(Node::Leader)))?;
        tool::run(&format!("ip -n {leader} link set br0 up"))?;
        for node in Node::all().filter(|node| *node != Node::Leader) {
            let (name, port) = (network.name(node), port(node));
            tool::run(&format!("ip netns add {name}"))?;
            tool::run(&format!("ip -n {name} link set lo up"))?;
            tool::run(&format!("ip -n {leader} link add {port} type veth peer name eth0 netns {name}"))?;
            tool::run(&format!("ip -n {leader} link set {port} master br0 up"))?;
            tool::run(&format!("ip -n {name} addr add {}/24 dev eth0", address(node)))?;
            tool::run(&format!("ip -n {name} link set eth0 up"))?;
        }
        let probe = network.slow(Node::Follower(1), &mut Random(0));
        network.netem = probe.is_ok();
        network.fast(Node::Follower(1));
        Ok(network)
    }

    /// Which tool makes links slow.
    pub(crate) fn slow_by(&self) -> &'static str {
        if self.netem { "netem" } else { "tbf (this kernel has no netem)" }
    }

    fn name(&self, node: Node) -> String {
        match node {
            Node::Leader => format!("{}-l", self.prefix),
            Node::Follower(number) => format!("{}-f{number}", self.prefix),
        }
    }

    /// The words before a command that is to run in a node's namespace.
    pub(crate) fn enter(&self, node: Node) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={NAMES}/{}", self.name(node))]
    }

    /// Loses what the leader sends to this follower.
    pub(crate) fn cut_to_follower(&self, node: Node) -> Result<(), String> {
        self.lose(Node::Leader, "br0", node)
    }

    /// Loses what this follower sends to the leader.
    pub(crate) fn cut_to_leader(&self, node: Node) -> Result<(), String> {
        self.lose(node, "eth0", Node::Leader)
    }

    /// Both.
    pub(crate) fn cut(&self, node: Node) -> Result<(), String> {
        self.cut_to_follower(node)?;
        self.cut_to_leader(node)
    }

    fn lose(&self, from: Node, device: &str, to: Node) -> Result<(), String> {
        let (from, to) = (self.name(from), address(to));
        tool::run(&format!("ip -n {from} neigh replace {to} lladdr {NOBODY} nud permanent dev {device}"))
    }

    /// Ends what the calls above began; there may be nothing to end.
    pub(crate) fn join(&self, node: Node) {
        for (from, device, to) in [(Node::Leader, "br0", node), (node, "eth0", Node::Leader)] {
            let _ = tool::run(&format!("ip -n {} neigh del {} dev {device}", self.name(from), address(to)));
        }
    }

    /// Makes both directions slow and lossy.
    pub(crate) fn slow(&self, node: Node, random: &mut Random) -> Result<(), String> {
        let how = if self.netem {
            let (delay, loss) = (random.between(2, 60), random.between(0, 4));
            format!("netem delay {delay}ms {}ms loss {loss}%", delay / 3)
        } else {
            format!("tbf rate {}kbit burst 4kb latency 50ms", random.between(100, 2_000))
        };
        tool::run(&format!("tc -n {} qdisc replace dev {} root {how}", self.name(Node::Leader), port(node)))?;
        tool::run(&format!("tc -n {} qdisc replace dev eth0 root {how}", self.name(node)))
    }

    /// Ends it.
    pub(crate) fn fast(&self, node: Node) {
        let _ = tool::run(&format!("tc -n {} qdisc del dev {} root", self.name(Node::Leader), port(node)));
        let _ = tool::run(&format!("tc -n {} qdisc del dev eth0 root", self.name(node)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in Node::all() {
            let name = self.name(node);
            if Path::new(NAMES).join(&name).exists()
                && let Err(error) = tool::run(&format!("ip netns del {name}"))
            {
                eprintln!("{error}");
            }
        }
    }
}

/// The address that a node has in its namespace.
pub(crate) fn address(node: Node) -> String {
    format!("10.77.0.{}", node.number() + 1)
}

fn port(node: Node) -> String {
    format!("f{}", node.number())
}

/// Removes the namespaces of runs that are gone. `is_gone` judges a name.
pub(crate) fn remove_leftovers(is_gone: impl Fn(&str) -> bool) {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_gone(&name) && tool::run(&format!("ip netns del {name}")).is_ok() {
            eprintln!("removed {name}, left by an earlier run");
        }
    }
}
