package oidc

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// document is something the provider publishes, kept in memory: its metadata or
// its keys. One goroutine fetches it at a time, and whoever has none waits for
// that one. A failed fetch leaves the former value in use.
type document[T any] struct {
	name    string
	fetch   func(context.Context) (T, error)
	timeout time.Duration
	maxAge  time.Duration // a use at this age starts a fetch behind it
	log     *slog.Logger

	mu       sync.Mutex // guards what follows
	value    T
	known    bool
	fetched  time.Time     // when value was
	fetching chan struct{} // closed when the fetch under way is over; nil: none is
	failures int           // in a row
	err      error         // of the last of them
	retry    time.Time     // no fetch before
}

// cooldown bounds how often one kind of caller may have a document fetched anew.
type cooldown struct {
	pause time.Duration
	last  time.Time // when it had; guarded by the document's mu
}

// The pause after a failed fetch doubles from the first to the last of these. It
// stays short, so that a provider that is back is found before anybody asks why
// (a login started meanwhile fails at once, with Retry-After).
const (
	firstPause = time.Second
	lastPause  = 8 * time.Second
)

// get returns the document. It waits only if there is none yet.
func (d *document[T]) get(ctx context.Context) (T, error) {
	d.mu.Lock()
	now := time.Now()
	wanted := !d.known || now.Sub(d.fetched) >= d.maxAge
	if wanted && !now.Before(d.retry) {
		d.start()
	}
	if d.known || d.fetching == nil {
		defer d.mu.Unlock()
		return d.value, d.missing()
	}
	done := d.fetching
	d.mu.Unlock()
	return d.await(ctx, done)
}

// renew returns the document as it is fetched after the call, unless limit had it
// fetched within its last pause: then as it is known, and newer is false if that
// is as it was. A fetch under way may have been answered too early, so that it is
// waited for and does not count.
func (d *document[T]) renew(ctx context.Context, limit *cooldown) (value T, newer bool, err error) {
	d.mu.Lock()
	if done := d.fetching; done != nil {
		d.mu.Unlock()
		if _, err := d.await(ctx, done); err != nil {
			return value, false, err
		}
		newer = true
		d.mu.Lock()
	}
	now := time.Now()
	if d.fetching == nil && (now.Sub(limit.last) < limit.pause || now.Before(d.retry)) {
		defer d.mu.Unlock()
		return d.value, newer, d.err
	}
	if d.fetching == nil {
		limit.last = now
		d.start()
	}
	done := d.fetching
	d.mu.Unlock()
	if _, err := d.await(ctx, done); err != nil {
		return value, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value, true, d.err
}

func (d *document[T]) await(ctx context.Context, done <-chan struct{}) (T, error) {
	select {
	case <-done:
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value, d.missing()
}

// missing is why there is no value, if there is none. The caller holds mu.
func (d *document[T]) missing() error {
	if d.known {
		return nil
	}
	return d.err
}

// peek returns the document if it is known, and never waits.
func (d *document[T]) peek() (value T, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value, d.known
}

// start fetches in a goroutine, unless one is at it. The fetch belongs to all who
// wait for it, so no caller's context ends it, only its own deadline; settle
// waits for it. The caller holds mu.
func (d *document[T]) start() {
	if d.fetching != nil {
		return
	}
	done := make(chan struct{})
	d.fetching = done
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
		defer cancel()
		value, err := d.fetch(ctx)
		d.finish(value, err)
	}()
}

func (d *document[T]) finish(value T, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetching = nil
	d.err = err
	if err != nil {
		pause := min(firstPause<<min(d.failures, 8), lastPause)
		d.retry = time.Now().Add(pause)
		if d.failures++; d.failures == 1 {
			d.log.Warn(d.name+" cannot be fetched; trying again", "event", "provider_unreachable", "error", err)
		}
		return
	}
	if d.failures > 0 {
		d.log.Info(d.name+" fetched again", "event", "provider_reachable", "failures", d.failures)
	}
	d.value, d.known, d.fetched, d.failures = value, true, time.Now(), 0
}

// retryAfter is when the next fetch may succeed, if the last one failed.
func (d *document[T]) retryAfter() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(firstPause, time.Until(d.retry))
}

// settle waits for a fetch under way; there is a deadline on it.
func (d *document[T]) settle() {
	d.mu.Lock()
	done := d.fetching
	d.mu.Unlock()
	if done != nil {
		<-done
	}
}
