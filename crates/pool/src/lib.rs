//! The pool: blocks, holders, inboxes and recovery, a state machine in shared memory.
//!
//! Public surface (being filled in; these signatures are what the daemon and the SDK build on):
//!
//! ```text
//! // ---- both sides
//! #[derive(Clone)] pub struct Pool;                                     // mappings of metadata and payload
//! pub struct PoolConfig { pub payload_bytes: u64, pub largest_block: u64, pub endpoints: u16, pub inbox_slots: u32 } // Default
//! pub struct PoolFds { pub metadata: OwnedFd, pub payload: OwnedFd }
//! pub struct EndpointId(..u16);  fn new(u16) -> Option<Self>, get() -> u16          // 1..=2047
//! pub struct EndpointRef { pub id: EndpointId, pub incarnation: u32 }               // what admission gives; what a sender addresses
//! pub struct BlockId(..u32); pub struct PoolId(..u128)
//! impl Pool {
//!   pub fn create(config: &PoolConfig) -> Result<(Pool, PoolFds), CreateError>;      // daemon
//!   pub fn open(metadata: BorrowedFd, payload: BorrowedFd) -> Result<Pool, OpenError>; // member, or a restarted daemon: validates; payload may be the read-only reopen
//!   pub fn id(&self) -> PoolId;  pub fn geometry(&self) -> &Geometry;  pub fn populate(&self) -> io::Result<()>; // call from a background thread
//!   // ---- daemon
//!   pub fn admit(&self, who: &Admission) -> Result<EndpointRef, AdmitError>;         // Admission { pid: u32, start_time: u64, name: String, inbox: Option<String> }
//!   pub fn close_inbox(&self, endpoint: EndpointRef) -> Vec<EndpointId>;             // hang-up of a living process; → endpoints to wake
//!   pub fn reap(&self, endpoint: EndpointRef) -> Result<Reaped, ReapError>;          // Reaped { blocks: Vec<BlockId>, freed: u32, wake: Vec<EndpointId> }; daemon writes the eventfds of `wake`
//!   pub fn endpoints(&self) -> Vec<EndpointInfo>;                                    // EndpointInfo { endpoint, state, pid, start_time, name, inbox, held_blocks, held_bytes, queued } (serde)
//!   pub fn usage(&self) -> PoolUsage;   pub fn audit(&self) -> AuditReport;          // (serde), report.ok
//!   // ---- member
//!   pub fn attach(&self, endpoint: EndpointRef) -> Result<(Member, Receiver), AttachError>;
//! }
//! #[derive(Clone)] pub struct Member;   // any thread
//! impl Member { pub fn endpoint(&self) -> EndpointRef; pub fn alloc(&self, len: usize) -> Result<BlockMut, AllocError>;
//!   pub fn send(&self, to: &Channel, block: Block) -> Result<(), SendError>;  pub fn send_newest(&self, to: &Channel, block: Block) -> Result<Sent, SendError>; }
//! pub struct Channel;  impl Channel { pub fn new(to: EndpointRef, wake: OwnedFd /*eventfd of that inbox*/) -> Self; pub fn to(&self) -> EndpointRef }
//! pub struct Receiver; // one owner
//! impl Receiver { pub fn try_recv(&mut self) -> Result<Option<Delivery>, RecvError>;
//!   pub fn prepare_sleep(&mut self) -> Result<Option<Delivery>, RecvError>; // sets `sleeping`, looks once more; None: now wait on the eventfd
//!   pub fn woken(&mut self); }                                              // clears `sleeping` after waking
//! BlockMut, Block, Exposed, Delivery { block, from: EndpointId }, Sent { replaced: u32 }, SendError { block, reason: SendFailure }  // as in the SDK's contract: the SDK re-exports them
//! ```
