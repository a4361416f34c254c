package session

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// The pauses after outages: doubling from firstPause, at most longestPause of
// our own accord, so that everything is well soon after the provider is; a
// Retry-After may ask for as much as longestRetryAfter.
const (
	firstPause        = 200 * time.Millisecond
	longestPause      = 5 * time.Second
	longestRetryAfter = time.Minute
)

// backoff says when one session may ask for a refresh again after an outage.
type backoff struct {
	mu       sync.Mutex
	failures int
	until    time.Time
	cause    error
}

// paused returns what went wrong, while no attempt may be made yet.
func (b *backoff) paused(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait := b.until.Sub(now); wait > 0 {
		return retryLater(b.cause, wait)
	}
	return nil
}

// calm tells whether the last attempt was no failure.
func (b *backoff) calm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures == 0
}

// retryLater tells a request to come back: the store's silence stays the
// store's, everything else is the provider's.
func retryLater(cause error, wait time.Duration) error {
	var down *StoreError
	if errors.As(cause, &down) {
		return down
	}
	return &Unavailable{max(wait, time.Second), cause}
}

// failed begins a pause and returns what to tell who asked.
func (b *backoff) failed(now time.Time, cause error, retryAfter time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	pause := min(longestPause, firstPause<<min(b.failures, 10))
	pause = pause/2 + rand.N(pause/2) // spread those who failed together
	pause = max(pause, min(retryAfter, longestRetryAfter))
	b.failures++
	b.until, b.cause = now.Add(pause), cause
	return retryLater(cause, pause)
}

func (b *backoff) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.until, b.cause = 0, time.Time{}, nil
}

// tripAfter is how many outages in a row, of whatever sessions, make the breaker
// hold everybody but one probe at a time.
const tripAfter = 3

// breaker keeps a provider that is down from being asked by every session it
// has: pains 5, the stampede.
type breaker struct {
	backoff
	tripped time.Time // when the pause began that holds everybody
}

// failed notes that a call has failed. What was under way when the others were held
// fails with them, and makes nobody wait longer: it tells nothing about the provider
// as it is since.
func (b *breaker) failed(begun, now time.Time, cause error, retryAfter time.Duration) {
	if b.straggler(begun) && retryAfter == 0 {
		return
	}
	b.backoff.failed(now, cause, retryAfter)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures >= tripAfter {
		b.tripped = now
	}
}

func (b *breaker) straggler(begun time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= tripAfter && begun.Before(b.tripped)
}

// admit lets a call go, or says why not. Once tripped it lets one go in each
// pause.
func (b *breaker) admit(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < tripAfter {
		return nil
	}
	if wait := b.until.Sub(now); wait > 0 {
		return retryLater(b.cause, wait)
	}
	b.until = now.Add(longestPause)
	return nil
}
