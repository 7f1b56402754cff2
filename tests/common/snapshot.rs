//! Leaders whose logs are compacted, followers that join them, and a proxy between the two that looks at the frames.

use super::compacted::history_of;
use super::{Log, Random, Write, temp_dir};
use logship::kv::StateMachine;
use logship::types::History;
use logship::wal::checkpoint::{self, Covered};
use logship::wal::compact::Retention;
use logship::{Error, Follower, Joined, Leader, Lsn, Options, Result, Store, Wal, wal};
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The name of a node's log.
pub(crate) const WAL: &str = "logship.wal";
/// A deadline that is never meant to pass.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Values of about a kilobyte, so that a checkpoint of some hundred of them takes several chunks; some are deleted.
pub(crate) fn log_of(count: usize) -> Log {
    let mut random = Random(11);
    let mut write = |lsn: usize| {
        if lsn.is_multiple_of(9) {
            return Write::del(format!("key-{}", lsn / 2).as_bytes(), lsn as u64);
        }
        let len = 900 + random.below(300);
        Write::set(format!("key-{lsn}").as_bytes(), &random.bytes(len), lsn as u64)
    };
    Log::new((1..=count).map(&mut write).collect())
}

/// A leader's directory: the log, compacted by a checkpoint of its first `covered` records.
pub(crate) fn home_with(log: &Log, covered: usize) -> TempDir {
    let home = temp_dir();
    let path = home.path().join(WAL);
    let ckpt = path.with_extension("wal.ckpt");
    std::fs::write(&path, &log.bytes).unwrap();
    let history = history_of(log, covered);
    let covers = Covered { offset: log.end_of(covered) as u64, lsn: Lsn(covered as u64), history };
    checkpoint::write(&log.store_of(covered), &ckpt, covers).unwrap();
    let done = Wal::open(&path).unwrap().compact(&ckpt, &Retention::default(), None).unwrap();
    assert_eq!(done.base, Lsn(covered as u64 - 1));
    home
}

/// A leader of one follower.
pub(crate) fn leader(home: &Path) -> Leader {
    Leader::open(home, Options { followers: 1, commit_timeout: LONG, ..Options::default() }).unwrap()
}

/// What a node is known by when it is opened.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) base: Lsn,
    pub(crate) last: Lsn,
    pub(crate) history: History,
    pub(crate) log: Vec<u8>,
    pub(crate) store: Store,
}

pub(crate) fn state_of(directory: &Path) -> State {
    let path = directory.join(WAL);
    let wal = Wal::open(&path).unwrap();
    let (base, last, history) = (wal.base_lsn(), wal.last_lsn(), wal.tail().history());
    drop(wal);
    let mut store = Store::new();
    wal::recover(&path, &mut store).unwrap();
    State { base, last, history, log: std::fs::read(path).unwrap(), store }
}

/// The same log, byte for byte, with the same LSNs, and the same store.
pub(crate) fn both_are_equal(home: &Path, away: &Path, what: &str) {
    let (home, away) = (state_of(home), state_of(away));
    assert_eq!((home.base, home.last, home.history), (away.base, away.last, away.history), "{what}");
    assert!(home.log == away.log, "{what}: the logs differ");
    assert!(home.store == away.store, "{what}: the stores differ");
}

/// Joins and follows until the log ends at `until`.
pub(crate) fn follow_to(directory: &Path, port: u16, until: Lsn) -> Result<()> {
    follow_while(directory, port, until, &AtomicBool::new(true))
}

/// Joins and follows until the log ends at `until` and the leader is content.
fn follow_while(directory: &Path, port: u16, until: Lsn, is_content: &AtomicBool) -> Result<()> {
    let mut follower = Follower::open(directory, 1)?;
    follower.join("127.0.0.1", port)?;
    while follower.last_lsn() < until || !is_content.load(Ordering::SeqCst) {
        match follower.follow_for(Duration::from_millis(5)) {
            Ok(_) | Err(Error::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    // The store that it has is the one that it finds when it is opened again.
    let mut live = Vec::new();
    follower.store().for_each(&mut |entry| {
        live.push((entry.key.to_vec(), entry.value.map(<[u8]>::to_vec), entry.timestamp));
        Ok(())
    })?;
    drop(follower);
    let mut found = Vec::new();
    state_of(directory).store.for_each(&mut |entry| {
        found.push((entry.key.to_vec(), entry.value.map(<[u8]>::to_vec), entry.timestamp));
        Ok(())
    })?;
    live.sort();
    found.sort();
    assert!(live == found, "the follower's store is not what it finds when it is opened again");
    Ok(())
}

/// Is called with a frame, and what has passed with it.
pub(crate) type Watch = Box<dyn FnMut(Frame, &Seen) + Send>;

/// What a proxy does to what the leader sends.
#[derive(Default)]
pub(crate) struct Proxy {
    /// Ends both connections after so many chunks, when the next frame comes.
    pub(crate) cut_after_chunks: Option<usize>,
    pub(crate) cut_before_install: bool,
    pub(crate) cut_behind_install: bool,
    /// Flips a bit of this byte of the body of this chunk.
    pub(crate) damage_chunk: Option<(usize, usize)>,
    /// Is told about each frame after it was passed on.
    pub(crate) watch: Option<Watch>,
}

/// What passed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) snapshots: usize,
    pub(crate) chunks: usize,
    /// Bytes of the checkpoint in them.
    pub(crate) chunk_bytes: u64,
    pub(crate) records: usize,
}

/// A frame from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Record,
    Snapshot,
    Chunk,
    Install,
    Other,
}

/// Bytes around a chunk's content: its type, offset and CRC, and the message's CRC.
const CHUNK_FRAME: u64 = 17;

/// Reads one frame: its header and body.
fn read_frame(from: &mut TcpStream) -> std::io::Result<(u32, Vec<u8>)> {
    let mut header = [0; 4];
    from.read_exact(&mut header)?;
    let word = u32::from_be_bytes(header);
    let mut body = vec![0; (word & 0x7fff_ffff) as usize];
    from.read_exact(&mut body)?;
    Ok((word, body))
}

/// The record in the next frame.
pub(crate) fn tail_of(peer: &mut TcpStream) -> Vec<u8> {
    peer.set_read_timeout(Some(LONG)).unwrap();
    let (word, body) = read_frame(peer).unwrap();
    assert_eq!(word as usize, body.len(), "no control message");
    body
}

impl Proxy {
    /// Passes frames on until one end closes or it is time to cut; the data that was passed on arrives.
    fn copy(&mut self, mut from: TcpStream, mut to: TcpStream) -> Seen {
        let (mut seen, mut is_cut) = (Seen::default(), false);
        while let Ok((word, mut body)) = read_frame(&mut from) {
            let frame = match (word & 0x8000_0000 != 0, body.first()) {
                (false, Some(_)) => Frame::Record,
                (true, Some(3)) => Frame::Snapshot,
                (true, Some(4)) => Frame::Chunk,
                (true, Some(5)) => Frame::Install,
                _ => Frame::Other,
            };
            let is_part = matches!(frame, Frame::Chunk | Frame::Install);
            is_cut = is_part && self.cut_after_chunks == Some(seen.chunks);
            is_cut |= frame == Frame::Install && self.cut_before_install;
            if is_cut {
                break;
            }
            if let Some((chunk, at)) = self.damage_chunk
                && frame == Frame::Chunk
                && chunk == seen.chunks
            {
                body[at] ^= 0x08;
            }
            match frame {
                Frame::Record => seen.records += 1,
                Frame::Snapshot => seen.snapshots += 1,
                Frame::Chunk => {
                    seen.chunks += 1;
                    seen.chunk_bytes += body.len() as u64 - CHUNK_FRAME;
                }
                _ => {}
            }
            if to.write_all(&word.to_be_bytes()).and_then(|()| to.write_all(&body)).is_err() {
                break;
            }
            if let Some(watch) = &mut self.watch {
                watch(frame, &seen);
            }
            is_cut = frame == Frame::Install && self.cut_behind_install;
            if is_cut {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        if is_cut {
            let _ = from.shutdown(Shutdown::Both); // Else what the follower has said is still to be passed on.
        }
        seen
    }

    /// Stands between one follower and the leader; returns its port, and what passed when both are gone.
    pub(crate) fn start(mut self, leader_port: u16) -> (u16, std::thread::JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let handle = std::thread::spawn(move || {
            let (follower, _) = listener.accept().unwrap();
            let leader = TcpStream::connect(("127.0.0.1", leader_port)).unwrap();
            for stream in [&follower, &leader] {
                stream.set_nodelay(true).unwrap();
            }
            let (mut up_from, mut up_to) = (follower.try_clone().unwrap(), leader.try_clone().unwrap());
            let up = std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = up_from.read(&mut buffer) {
                    // What the leader does not want any more is read all the same, or the follower would be reset.
                    let _ = up_to.write_all(&buffer[..count]);
                }
                let _ = up_to.shutdown(Shutdown::Both);
            });
            let seen = self.copy(leader, follower);
            up.join().unwrap();
            seen
        });
        (port, handle)
    }
}

/// A follower joins once, through a proxy, and follows until its log ends at `until`. Returns what the leader says, what
/// passed, and how the follower ended.
pub(crate) fn join_through(
    leader: &mut Leader,
    away: &Path,
    until: Lsn,
    proxy: Proxy,
) -> (Result<Joined>, Seen, Result<()>) {
    let (port, passed) = proxy.start(leader.port());
    let (directory, is_content) = (away.to_path_buf(), Arc::new(AtomicBool::new(false)));
    let said = Arc::clone(&is_content);
    let follower = std::thread::spawn(move || follow_while(&directory, port, until, &said));
    let joined = leader.accept(LONG);
    is_content.store(true, Ordering::SeqCst);
    let ended = follower.join().unwrap();
    let seen = passed.join().unwrap();
    (joined, seen, ended)
}
