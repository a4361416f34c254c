package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// kind is a way to treat a process badly.
type kind string

const (
	gatewayKill  kind = "gateway killed"
	gatewayPause kind = "gateway paused"
	gatewayStop  kind = "gateway stopped"

	storeKill  kind = "store killed"
	storePause kind = "store paused"
	storeStop  kind = "store stopped"

	providerKill  kind = "provider killed"
	providerPause kind = "provider paused"

	// Nobody did that: the machine, or its disk, had other things to do.
	machineStood kind = "machine stood still"
	storeStood   kind = "store stood still"
)

var (
	gatewayKinds  = []kind{gatewayKill, gatewayPause, gatewayStop}
	storeKinds    = []kind{storeKill, storePause, storeStop}
	providerKinds = []kind{providerKill, providerPause}
	stoodKinds    = []kind{machineStood, storeStood}
	allKinds      = slices.Concat(gatewayKinds, storeKinds, providerKinds, stoodKinds)
)

// history is what was done to the processes, and when. It is what failures have to
// be explained by.
type history struct {
	mu    sync.Mutex // guards spans
	spans []*span
}

// span is a time for which a process was treated badly: until it was well again.
type span struct {
	kind     kind
	what     string
	from, to time.Time // to is zero while it lasts
}

func (h *history) begin(k kind, what string) *span {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &span{kind: k, what: what, from: time.Now()}
	h.spans = append(h.spans, s)
	return s
}

func (h *history) end(s *span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.to = time.Now()
}

// stood notes what was seen of a time for which nothing went on.
func (h *history) stood(k kind, from time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spans = append(h.spans, &span{kind: k, what: "by itself", from: from, to: time.Now()})
}

// explains tells whether something of these kinds happened within a time, or so
// little earlier that it still tells.
func (h *history) explains(from, to time.Time, after time.Duration, kinds ...kind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.spans, func(s *span) bool {
		return slices.Contains(kinds, s.kind) && s.from.Before(to) && (s.to.IsZero() || s.to.Add(after).After(from))
	})
}

// until is when the last of these kinds was over that began within a time.
func (h *history) until(from, to time.Time, kinds ...kind) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := to
	for _, s := range h.spans {
		if slices.Contains(kinds, s.kind) && s.from.Before(to) && s.to.After(from) && s.to.After(end) {
			end = s.to
		}
	}
	return end
}

// count is how often processes were treated so.
func (h *history) count(kinds ...kind) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, s := range h.spans {
		if slices.Contains(kinds, s.kind) {
			n++
		}
	}
	return n
}

// between tells what happened within a time, to whoever has to find out why
// something went wrong.
func (h *history) between(since, until time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, s := range h.spans {
		if !s.to.IsZero() && s.to.Before(since) || s.from.After(until) {
			continue
		}
		to := "now"
		if !s.to.IsZero() {
			to = clock(s.to)
		}
		fmt.Fprintf(&b, "\n  %s to %s: %s, %s", clock(s.from), to, s.kind, s.what)
	}
	return b.String()
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
