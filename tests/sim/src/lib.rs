// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deterministic simulator around the production engine.
//!
//! One thread, one virtual clock, one seed: everything a run does is drawn from its
//! seed, so a failure is repeated by its number alone. The engine is the one that
//! production runs; everything around it (hosts, driver, kernel, links, servers,
//! caches, volumes) is a model, and an oracle that knows nothing of the engine judges
//! every answer.
//!
//! ## The fault model
//!
//! What may happen, and what the engine may rely on. A run never leaves this table, or
//! it would ask of the engine what nobody promised.
//!
//! | where | may | never |
//! |---|---|---|
//! | host | break off and come back at any time, then issue again what was not answered | time out; have two requests of one content told apart |
//! | our process, our kernel | keep bytes queued for as long as a link is silent | send one byte after a reset |
//! | network | keep bytes; deliver what was on its way after a reset | deliver out of order, or on another connection |
//! | server, connection stands | take any time for any request, be stopped, answer in any order, carry a request out in parts or twice before it answers | carry it out after it has answered; answer ESHUTDOWN to what it has begun |
//! | server, connection gone, `unproven = "assume"` | carry out what it received, once or more, within `quiesce` | later than that: this is what `assume` assumes |
//! | server, connection gone, `unproven = "hold"` | the same at any time | |
//! | server process dies | with what it worked on done or not, with its cache kept or lost | work on |
//! | server that does not drain | close at DISC and go on working | |
//! | cache | write back on its own in any order; lose what is dirty with its process or host; fail a FLUSH and lose what that should have covered | lose what it has flushed; fail without telling every server that shares it |
//! | our process dies | with all that is in flight; what servers have of it is carried out, and comes out of caches apart, within `quiesce`, in every mode (W10) | die while it mends what only it knows of (a lost cache, a ghost let go) |
//! | gate | take as long to end a session as its storage takes; lose its process or its cache and tell so | answer a claim before that session is over; keep its nonce in another process, or its generation over a loss |
//! | caches apart (`coherent = false`) | hide what is dirty from each other; write old content back over new, within `quiesce` of the connection's end in the bounded mode | serve clean content that another server has changed; lack FUA |
//! | two servers, one lost its cache | show older content until every connection to the lost one is gone | |
//! | another writer (`writers = "many"`) | write what no host of ours has open, and has not failed | |
//!
//! Left out because the engine cannot do anything about it: a server that lies, a
//! FLUSH error that is told to nobody, clean read caches that go stale.
//!
//! ## The map
//!
//! | module | what |
//! |---|---|
//! | `rng`, `plan` | the seed and what is drawn from it |
//! | `queue`, `env` | the clock and what all share |
//! | `medium`, `server`, `conn`, `op` | volumes, servers, connections, operations |
//! | `device` | the engine with hosts, driver and storage around it |
//! | `faults` | what is done to all of it |
//! | `oracle` | what every sector may hold (T1-T3) |
//! | `world`, `run` | a run, and its phases (T7) |
//! | `coverage` | what was exercised (T6) |
//! | `record`, `shadow` | decision points, as lines of a file too, and what other settings would have done |
//! | `seen` | what was answered over time, for scenarios |
//! | `sabotage`, `switches` | damage that must be found (T5) |

pub mod conn;
pub mod coverage;
pub mod device;
pub mod env;
pub mod faults;
pub mod medium;
pub mod op;
pub mod oracle;
pub mod plan;
pub mod queue;
pub mod record;
pub mod rng;
pub mod run;
pub mod sabotage;
pub mod seen;
pub mod server;
pub mod shadow;
pub mod switches;
pub mod world;
