package session

import (
	"context"
	"fmt"
	"time"
)

// Portable is a Store whose content can move to another one. Records are sealed,
// so that they move as they are: keys and the ids in cookies stay the same.
type Portable interface {
	Store

	// Export gives f all that the store holds but leases, in pages of no more than
	// ExportPage, marks first: whoever imports in this order starts no session that
	// was logged out already. It stops at the first error, of f or its own. What is
	// written meanwhile may be missed, and one item may be given twice. An error also
	// tells that other servers took over meanwhile, so that some may be missed.
	Export(ctx context.Context, f func([]Item) error) error

	// Import adds what is missing, so that it may be repeated, and tells what became
	// of each. A session that ended in either store is ended; of two live records the
	// one with the higher version stays, with the later use of both. On an error some
	// may have been imported.
	Import(ctx context.Context, items []Item) ([]Fate, error)
}

// ExportPage is the most items of a page.
const ExportPage = 500

// Item is one thing that a store holds: exactly one of Record, Ended, Mark and
// Claimed is set.
type Item struct {
	// Key is that of the session or the claim, or a mark's tag.
	Key Key
	// Record is a live session's, with its version.
	Record *Record
	// Ended is the reason of a tombstone.
	Ended Reason
	// Mark is a tag's.
	Mark *Mark
	// Claimed: somebody claimed the key by Once.
	Claimed bool
	// Until is when the store forgets a tombstone, a mark or a claim, live records
	// excepted.
	Until time.Time
}

// Fate is what became of an imported item.
type Fate int

// Fates of items.
const (
	// FateKept: the store had it already, as new or newer.
	FateKept Fate = iota
	// FateAdded: the store did not have it.
	FateAdded
	// FateRenewed: the store had an older record of the session.
	FateRenewed
	// FateEnded: a tombstone ended a session that was live.
	FateEnded
	// FateOver: a live record of a session that is over by what the store knows, or
	// an item whose time is over. It was not imported.
	FateOver
)

// Tally counts what became of items.
type Tally struct {
	Sessions, Tombstones, Marks, Claims map[Fate]int
}

// Move copies all that a store holds to another one. It can be repeated: that
// loses nothing, brings no ended session back and puts no older record in the place
// of a newer one. The tally is of what was done, also when it returns an error half
// way.
func Move(ctx context.Context, from, to Portable) (Tally, error) {
	t := Tally{map[Fate]int{}, map[Fate]int{}, map[Fate]int{}, map[Fate]int{}}
	err := from.Export(ctx, func(items []Item) error {
		fates, err := to.Import(ctx, items)
		if err != nil {
			return err
		}
		if len(fates) != len(items) {
			return fmt.Errorf("session: %d items were imported of %d", len(fates), len(items))
		}
		for i, item := range items {
			t.of(item)[fates[i]]++
		}
		return nil
	})
	return t, err
}

func (t *Tally) of(item Item) map[Fate]int {
	switch {
	case item.Record != nil:
		return t.Sessions
	case item.Ended != "":
		return t.Tombstones
	case item.Mark != nil:
		return t.Marks
	}
	return t.Claims
}

// Over tells an item whose time is over.
func (i Item) Over(now time.Time) bool {
	if i.Record != nil {
		return !now.Before(i.Record.Expires.Add(TombstoneGrace))
	}
	return !now.Before(i.Until)
}
