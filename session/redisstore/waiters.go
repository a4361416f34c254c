package redisstore

import "sync"

// waiters are those who wait for a key to change.
type waiters struct {
	mu sync.Mutex // guards of
	of map[string]map[chan struct{}]bool
}

// enter returns what is sent when the key changed, or may have. It is called
// before the key is read.
func (w *waiters) enter(name string) (woken <-chan struct{}, leave func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[name] == nil {
		w.of[name] = map[chan struct{}]bool{}
	}
	w.of[name][ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.of[name], ch); len(w.of[name]) == 0 {
			delete(w.of, name)
		}
	}
}

func (w *waiters) wake(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rouse(w.of[name])
}

func (w *waiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, waiting := range w.of {
		rouse(waiting)
	}
}

func rouse(waiting map[chan struct{}]bool) {
	for ch := range waiting {
		select {
		case ch <- struct{}{}:
		default: // it is woken already
		}
	}
}
