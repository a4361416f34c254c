package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
)

// RunReplicas runs the suite against several stores that share what they keep, as
// those of several processes do: each call goes to any one of them. It also checks
// what only several can get wrong, and that they tell of each other's writes
// (session.Shared). Every subtest calls open for stores of its own, at least two,
// which see what each other writes and nothing else; open closes them by t.Cleanup.
func RunReplicas(t *testing.T, open func(t *testing.T) []session.Store) {
	Run(t, func(t *testing.T) session.Store { return anyOf(open(t)) })
	t.Run("Replicas", func(t *testing.T) {
		for _, r := range replicaRows {
			t.Run(r.name, func(t *testing.T) {
				stores := open(t)
				r.run(t, stores[0], stores[1])
			})
		}
	})
	runShared(t, open)
}

var replicaRows = []struct {
	name string
	run  func(t *testing.T, one, other session.Store)
}{
	{"what one has written the other reads at once", func(t *testing.T, one, other session.Store) {
		rec := record(random[session.Tag]())
		for range 200 {
			key := create(t, one, rec)
			if err := one.Replace(t.Context(), key, 1, []byte("new")); err != nil {
				t.Fatalf("Replace: %v", err)
			}
			touch(t, one, key, now)
			got := load(t, other, key)
			if got.Version != 2 || !got.Used.Equal(now) {
				t.Fatalf("Load = version %d, used %v, want 2 and %v", got.Version, got.Used, now)
			}
			wantListed(t, other, rec.Tags[0], key)
			end(t, one, key, session.Logout)
			wantGone(t, other, key, session.Logout)
			wantListed(t, other, rec.Tags[0])
		}
	}},
	// A process that stood still while its lease ran out does not write over what the
	// next holder wrote.
	{"a holder whose lease ran out is fenced by the version", func(t *testing.T, one, other session.Store) {
		key := create(t, one, record())
		lost := acquire(t, one, key, brief)
		seen := load(t, one, key).Version
		lease := acquire(t, other, key, long)
		if err := other.Replace(t.Context(), key, load(t, other, key).Version, []byte("other")); err != nil {
			t.Fatalf("Replace by the new holder: %v", err)
		}
		wantError(t, "Replace", one.Replace(t.Context(), key, seen, []byte("one")), session.ErrConflict)
		wantError(t, "Renew", one.Renew(t.Context(), lost, long), session.ErrLeaseLost)
		release(t, one, lost)
		wantHeld(t, one, key)
		wantBytes(t, "Data", load(t, one, key).Data, []byte("other"))
		release(t, other, lease)
		acquire(t, one, key, long)
	}},
	{"whoever waits gets the lease that the other released", func(t *testing.T, one, other session.Store) {
		key := random[session.Key]()
		lease := acquire(t, one, key, long)
		time.AfterFunc(brief, func() {
			if err := one.Release(context.WithoutCancel(t.Context()), lease); err != nil {
				t.Errorf("Release: %v", err)
			}
		})
		acquire(t, other, key, long)
	}},
	{"a lease of a store that is closed runs out", func(t *testing.T, one, other session.Store) {
		key := random[session.Key]()
		acquire(t, one, key, 4*brief)
		if err := one.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		acquire(t, other, key, long)
	}},
	{"a session that one ends and the other refreshes stays ended", func(t *testing.T, one, other session.Store) {
		for range 200 {
			key := create(t, one, record())
			var replaced error
			parallel(2, func(i int) {
				if i == 0 {
					replaced = other.Replace(t.Context(), key, 1, []byte("new"))
				} else if _, err := one.End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
					t.Errorf("End: %v", err)
				}
			})
			if replaced != nil && !isEnded(replaced, session.Logout) {
				t.Errorf("Replace: %v", replaced)
			}
			wantGone(t, one, key, session.Logout)
			wantGone(t, other, key, session.Logout)
		}
	}},
	{"of two that sweep at once each ending is told of once", func(t *testing.T, one, other session.Store) {
		rec := record()
		rec.Used = ago(idle)
		keys := createMany(t, one, 1000, rec)
		told := make([][]session.Ending, 4)
		parallel(len(told), func(i int) {
			var err error
			if told[i], err = []session.Store{one, other}[i%2].Sweep(t.Context(), limits); err != nil {
				t.Errorf("Sweep: %v", err)
			}
		})
		var all []session.Ending
		for _, endings := range told {
			all = append(all, endings...)
		}
		wantEndings(t, all, session.IdleTimeout, rec.Binding, keys...)
	}},
}

// anyStore sends each call to any of its stores.
type anyStore []session.Store

func anyOf(stores []session.Store) session.Store { return anyStore(stores) }

func (a anyStore) any() session.Store { return a[rand.N(len(a))] }

func (a anyStore) Create(ctx context.Context, key session.Key, rec session.Record) error {
	return a.any().Create(ctx, key, rec)
}

func (a anyStore) Load(ctx context.Context, key session.Key) (session.Record, error) {
	return a.any().Load(ctx, key)
}

func (a anyStore) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	return a.any().Replace(ctx, key, version, data)
}

func (a anyStore) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	return a.any().End(ctx, key, reason, c)
}

func (a anyStore) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	return a.any().EndTagged(ctx, tag, reason, sc)
}

func (a anyStore) Mark(ctx context.Context, tag session.Tag, m session.Mark) error {
	return a.any().Mark(ctx, tag, m)
}

func (a anyStore) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	return a.any().Tagged(ctx, tag, after, limit)
}

func (a anyStore) Touch(ctx context.Context, touches []session.Touch) error {
	return a.any().Touch(ctx, touches)
}

func (a anyStore) Once(ctx context.Context, key session.Key, until time.Time) error {
	return a.any().Once(ctx, key, until)
}

func (a anyStore) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	return a.any().Acquire(ctx, key, ttl)
}

func (a anyStore) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	return a.any().Renew(ctx, l, ttl)
}

func (a anyStore) Release(ctx context.Context, l session.Lease) error { return a.any().Release(ctx, l) }

func (a anyStore) Sweep(ctx context.Context, l session.Limits) ([]session.Ending, error) {
	return a.any().Sweep(ctx, l)
}

func (a anyStore) Count(ctx context.Context) (int, error) { return a.any().Count(ctx) }

func (a anyStore) Ping(ctx context.Context) error { return a.any().Ping(ctx) }

// Close closes all of them at once: those who wait for a lease wait at any.
func (a anyStore) Close() error {
	errs := make([]error, len(a))
	var wg sync.WaitGroup
	for i, s := range a {
		wg.Go(func() { errs[i] = s.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
