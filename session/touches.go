package session

import (
	"context"
	"sync"
	"time"
)

// touches collects uses between two writes, so that the request path never
// waits for the store, and many sessions' uses are one write.
type touches struct {
	mu      sync.Mutex
	last    map[Key]int64 // Unix nanoseconds, not yet in the store
	flushMu sync.Mutex    // one flush at a time: who flushed has seen all before it stored
}

func (t *touches) add(key Key, at int64) {
	t.mu.Lock()
	t.last[key] = max(at, t.last[key])
	t.mu.Unlock()
}

// pending is a use the store does not know yet, 0 for none.
func (t *touches) pending(key Key) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[key]
}

// flushTouches writes what was collected. What the store does not take is kept
// for the next time.
func (m *Manager) flushTouches(ctx context.Context) error {
	t := &m.touches
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	t.mu.Lock()
	batch := make([]Touch, 0, len(t.last))
	for key, at := range t.last {
		batch = append(batch, Touch{key, time.Unix(0, at)})
	}
	t.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := m.store.Touch(ctx, batch); err != nil {
		return unknown(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, touch := range batch {
		if t.last[touch.Key] == touch.At.UnixNano() {
			delete(t.last, touch.Key)
		}
	}
	return nil
}
