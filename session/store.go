package session

import (
	"context"
	"errors"
	"time"
)

// Key names a session in a store: the SHA-256 of the session id. Whoever reads
// the store learns no id from it.
type Key [32]byte

// Tag groups sessions that may have to end together. It is an HMAC, so a store
// can look sessions up by it without learning whose they are.
type Tag [32]byte

// Record is what a store keeps of a live session. Everything that tells whose
// session it is, is sealed in Data or Listing.
type Record struct {
	// Version counts the writes of Data: 1 at Create, one more at each Replace.
	// The store sets it.
	Version uint64
	// Binding is a hash of the (origin, issuer, client_id) the session belongs to.
	Binding [32]byte
	// Began is when the browser was sent to log in, Created when it was back.
	Began, Created time.Time
	// Expires is the absolute end, fixed at Create.
	Expires time.Time
	// Used is the last use the store was told of; Touch moves it forward.
	Used time.Time
	// Tags are fixed at Create.
	Tags []Tag
	// Listing describes the session to its owner and to operators, sealed under
	// session.keys. Fixed at Create.
	Listing []byte
	// Data holds tokens and claims, sealed under a key that only the session's
	// cookie holds.
	Data []byte
}

// Touch records that a session was in use at a time.
type Touch struct {
	Key Key
	At  time.Time
}

// Condition narrows an End. The zero Condition is always met.
type Condition struct {
	// Version, unless 0, is the version the record must still have.
	Version uint64
	// UnusedSince, unless zero, is a time after which the session must not have
	// been used, by the store's own knowledge.
	UnusedSince time.Time
}

// Scope narrows an EndTagged. The zero Scope is every session with the tag.
type Scope struct {
	// Except are spared.
	Except []Key
	// BeganBefore, unless zero, spares sessions whose login began then or later.
	BeganBefore time.Time
}

// Mark keeps sessions from being created that have ended already: their logout
// was faster than their login.
type Mark struct {
	Reason Reason
	// BeganBefore: sessions whose login began before it never start.
	BeganBefore time.Time
	// Until is when no such login can still be under way.
	Until time.Time
}

// Listed is a live session as Tagged tells of it: all of its record but Data.
type Listed struct {
	Key Key
	Record
}

// Limits tells Sweep which sessions are over. An Idle or Lifetime of 0 limits
// nothing.
type Limits struct {
	Now time.Time
	// Idle is how long a session may be unused.
	Idle time.Duration
	// Lifetime ends a session at Created+Lifetime where that is before Expires,
	// so that a shortened configuration reaches sessions that exist.
	Lifetime time.Duration
}

// Ending tells of one session that a store ended.
type Ending struct {
	Key     Key
	Binding [32]byte
	Reason  Reason
}

// Lease is the exclusive right to refresh one session, for a time.
type Lease struct {
	Key Key
	// Token tells this holder from any other, past or future.
	Token string
	// Until is when it runs out by this process' clock, at the earliest, unless it
	// is renewed: its time begins when it is asked for, whenever the answer comes.
	Until time.Time
}

// TombstoneGrace is how long a tombstone outlives the absolute end of its
// session, so that a tab that wakes late still learns the reason.
const TombstoneGrace = time.Hour

// Store keeps sessions. Implementations are safe for concurrent use and pass
// storetest.Run.
//
// Three answers are told apart everywhere: found (nil error), absent
// (ErrAbsent, or *Ended where a tombstone tells the reason), and unknown: any
// other error, which says nothing about the session. A store that cannot tell
// must not say absent.
//
// All methods are durable when they return nil: a crash afterwards loses
// nothing, but Touch, of which a crash may lose the last second, and leases,
// which a crash of the holder's process may end. An error of the third kind
// leaves open whether a write took place.
//
// Byte slices that a store returns belong to the caller, those it is given may
// be reused after it returns.
type Store interface {
	// Create adds a session. ErrExists: the key is taken, by a live session or a
	// tombstone. *Ended, with the mark's reason: one of its tags is marked, and its
	// login began before what the mark says. Nothing was changed then.
	Create(ctx context.Context, key Key, rec Record) error

	// Load returns a live session's record, whether or not it has run out by the
	// clock. ErrAbsent, *Ended.
	Load(ctx context.Context, key Key) (Record, error)

	// Replace writes data if the session is live and at the given version, and
	// moves it to version+1. ErrConflict: it is live at another version.
	// ErrAbsent, *Ended: a session that ended is never brought back.
	Replace(ctx context.Context, key Key, version uint64, data []byte) error

	// End turns a live session that meets the condition into a tombstone with the
	// reason, removes its tags, listing and data, and returns the record as it
	// was at that moment. ErrConflict: it is live but does not meet the
	// condition. ErrAbsent, *Ended (with the first reason, which stays).
	End(ctx context.Context, key Key, reason Reason, c Condition) (Record, error)

	// EndTagged ends every live session that carries the tag and is in the scope,
	// and tells which, also when it returns an error half way. No session: nil
	// error. Sessions created while it runs may be missed.
	EndTagged(ctx context.Context, tag Tag, reason Reason, sc Scope) ([]Ending, error)

	// Mark marks a tag for Create, beginning now: an EndTagged after it and Create
	// between them miss no session. Of two marks of a tag the one with the later
	// BeganBefore stays, and both their times Until are kept. One that ran out counts
	// for nothing.
	Mark(ctx context.Context, tag Tag, m Mark) error

	// Tagged lists live sessions that carry the tag, in the order of their keys: at
	// most limit of those whose key comes after the given one. The zero Key comes
	// before all.
	Tagged(ctx context.Context, tag Tag, after Key, limit int) ([]Listed, error)

	// Touch moves Used of live sessions forward, never back, and leaves their
	// versions alone. Sessions that are not live are passed over.
	Touch(ctx context.Context, touches []Touch) error

	// Once claims a key until a time. ErrExists: somebody did before, and the
	// claim has not run out. The keys are apart from those of sessions.
	Once(ctx context.Context, key Key, until time.Time) error

	// Acquire waits until no lease on the key is held, or ctx ends, and takes it
	// for ttl. It does not look whether there is such a session.
	Acquire(ctx context.Context, key Key, ttl time.Duration) (Lease, error)

	// Renew makes a held lease last ttl from now. ErrLeaseLost: it ran out, and
	// may be somebody else's.
	Renew(ctx context.Context, l Lease, ttl time.Duration) error

	// Release gives a lease back. One that was lost already is no error.
	Release(ctx context.Context, l Lease) error

	// Sweep ends what is over by the limits, as Lifetime before IdleTimeout, and
	// forgets tombstones TombstoneGrace after their session's Expires, and claims of
	// Once and marks that ran out. It works in small steps and tells which sessions it
	// ended, also when it returns an error half way.
	Sweep(ctx context.Context, l Limits) ([]Ending, error)

	// Count returns how many live records there are; it may be a little off.
	Count(ctx context.Context) (int, error)

	// Ping tells whether the store can be reached.
	Ping(ctx context.Context) error

	// Close waits for calls in progress.
	Close() error
}

// The answers of a Store that callers branch on.
var (
	ErrAbsent    = errors.New("session: absent")
	ErrExists    = errors.New("session: exists")
	ErrConflict  = errors.New("session: changed by somebody else")
	ErrLeaseLost = errors.New("session: lease lost")
)

// Reason says why a session ended.
type Reason string

// The reasons that an SPA can be told (DESIGN.md, section 7).
const (
	IdleTimeout     Reason = "idle_timeout"
	Lifetime        Reason = "lifetime"
	Logout          Reason = "logout"
	BackChannel     Reason = "backchannel"
	FrontChannel    Reason = "frontchannel"
	Revoked         Reason = "revoked"
	RefreshRejected Reason = "refresh_rejected"
	TokenExpired    Reason = "token_expired"
	Replaced        Reason = "replaced"
)

// Unproven is what a Watcher is told when the store has been silent for too long:
// the session may be over or not. It ends no session.
const Unproven Reason = "store_unavailable"
