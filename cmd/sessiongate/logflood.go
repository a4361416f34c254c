package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Of one kind of line that somebody without a session can cause, so many are
// logged in a window; the rest is counted, and the window ends with a line that
// says how many there were.
const (
	floodLines  = 20
	floodWindow = 10 * time.Second
)

// floodable are the events whose lines cost a stranger no more than a request. All
// others need a session, the provider or an operator, and are never left out; the
// access log says of each request that there was one.
var floodable = map[string]bool{
	"csrf_rejected": true, "login_failed": true, "backchannel_logout": true, "frontchannel_logout": true,
	"request_failed": true, "upstream_failed": true, "store_unavailable": true, "admin_denied": true, "server": true,
}

// canFlood spares the logouts of the provider: their tokens are signed.
func canFlood(event string, level slog.Level) bool {
	return floodable[event] && (event != "backchannel_logout" || level > slog.LevelInfo)
}

// lineKind is what lines of a flood have in common. All of it is ours to say, so
// that there are few: an attacker cannot hide what happens for another reason.
type lineKind struct {
	event, reason string
	app, route    string
	level         slog.Level
}

// note takes over what an attribute says of the kind.
func (k *lineKind) note(a slog.Attr) {
	switch a.Key {
	case "event":
		k.event = a.Value.String()
	case "reason", "code":
		k.reason = a.Value.String()
	case "app":
		k.app = a.Value.String()
	case "route":
		k.route = a.Value.String()
	}
}

// floods counts lines, for all loggers made of one.
type floods struct {
	root slog.Handler // says how many there were, for all of them

	mu    sync.Mutex // guards kinds
	kinds map[lineKind]int
}

// floodHandler keeps a flood of requests from being a flood of lines.
type floodHandler struct {
	slog.Handler
	*floods
	app string // of all its lines
}

func newFloodHandler(h slog.Handler) slog.Handler {
	return floodHandler{Handler: h, floods: &floods{root: h, kinds: make(map[lineKind]int)}}
}

// Handle implements slog.Handler.
func (h floodHandler) Handle(ctx context.Context, r slog.Record) error {
	kind := lineKind{level: r.Level, app: h.app}
	r.Attrs(func(a slog.Attr) bool {
		kind.note(a)
		return a.Key != "event" || canFlood(kind.event, r.Level) // nothing else matters then
	})
	if canFlood(kind.event, r.Level) && !h.admits(kind) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// admits counts a line, and tells whether it is one of the first.
func (h floodHandler) admits(kind lineKind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.kinds[kind]
	if n == 0 {
		time.AfterFunc(floodWindow, func() { h.summarise(kind) })
	}
	h.kinds[kind] = n + 1
	return n < floodLines
}

// summarise ends a window.
func (h floodHandler) summarise(kind lineKind) {
	h.mu.Lock()
	left := h.kinds[kind] - floodLines
	delete(h.kinds, kind)
	h.mu.Unlock()
	if left <= 0 {
		return
	}
	r := slog.NewRecord(time.Now(), kind.level, "more lines of this kind were left out", 0)
	r.Add("event", "log_flood", "of", kind.event, "reason", kind.reason)
	if kind.app != "" {
		r.Add("app", kind.app)
	}
	if kind.route != "" {
		r.Add("route", kind.route)
	}
	r.Add("lines", left, "seconds", floodWindow.Seconds())
	_ = h.root.Handle(context.Background(), r)
}

// WithAttrs implements slog.Handler.
func (h floodHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	kind := lineKind{app: h.app}
	for _, a := range attrs {
		kind.note(a)
	}
	return floodHandler{h.Handler.WithAttrs(attrs), h.floods, kind.app}
}

// WithGroup implements slog.Handler.
func (h floodHandler) WithGroup(name string) slog.Handler {
	return floodHandler{h.Handler.WithGroup(name), h.floods, h.app}
}
