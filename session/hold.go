package session

import (
	"context"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leaseMargin is how much longer than a token call its lease lasts, renewed or
	// not (DESIGN.md, section 5).
	leaseMargin = 5 * time.Second
	// unsure is the end of a lease, which is as good as over: the store's clock and
	// ours do not run alike.
	unsure = 100 * time.Millisecond
)

// hold is a lease that is renewed while its refresh works. It may be lost all the
// same, to a store that is away or because the process stood still. What has not
// been sent to the provider then must not be: somebody else may be sending it.
type hold struct {
	store Store
	ttl   time.Duration

	mu    sync.Mutex // guards what follows
	lease Lease
	over  *time.Timer // closes lost when the lease runs out
	lost  chan struct{}
}

func newHold(store Store, l Lease, ttl time.Duration) *hold {
	h := &hold{store: store, ttl: ttl, lease: l, lost: make(chan struct{})}
	h.over = time.AfterFunc(h.left(), func() { close(h.lost) })
	return h
}

// left is how long the lease lasts for certain.
func (h *hold) left() time.Duration { return time.Until(h.lease.Until) - unsure }

// held tells whether it certainly is the holder's still.
func (h *hold) held() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left() > 0
}

// keep renews the lease until ctx ends.
func (h *hold) keep(ctx context.Context) {
	tick := time.NewTicker(h.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.renew(ctx)
		}
	}
}

func (h *hold) renew(ctx context.Context) {
	asked := time.Now()
	if h.store.Renew(ctx, h.lease, h.ttl) != nil {
		return // it goes on until it runs out, if it has not yet
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lease.Until = asked.Add(h.ttl)
	if h.over.Stop() {
		h.over.Reset(h.left())
	}
}

// release gives the lease back.
func (h *hold) release(ctx context.Context) {
	h.over.Stop()
	h.store.Release(ctx, h.lease)
}

// sending is a context for a call that nobody else may be making. It ends when the
// lease is lost before the call has been written. unsent tells, when the call is
// over, whether it ended so.
func (h *hold) sending(ctx context.Context) (_ context.Context, unsent func() bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	var written atomic.Bool
	done := make(chan struct{})
	go func() {
		select {
		case <-h.lost:
			if !written.Load() {
				cancel(ErrLeaseLost)
			}
		case <-done:
		}
	}()
	trace := &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }}
	return httptrace.WithClientTrace(ctx, trace), sync.OnceValue(func() bool {
		close(done)
		defer cancel(nil)
		return context.Cause(ctx) == ErrLeaseLost && !written.Load() // both may have come at once
	})
}
