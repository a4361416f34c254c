package oidc_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"sessiongate/session"
)

// brokenStore is a store that can stop answering. It counts the calls that
// requests lead to.
type brokenStore struct {
	session.Store
	mu    sync.Mutex
	down  bool
	calls int
}

var errDown = errors.New("store: disk on fire")

func (s *brokenStore) fail() { s.mu.Lock(); s.down = true; s.mu.Unlock() }
func (s *brokenStore) fix()  { s.mu.Lock(); s.down = false; s.mu.Unlock() }

func (s *brokenStore) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *brokenStore) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.down {
		return errDown
	}
	return nil
}

func (s *brokenStore) Load(ctx context.Context, key session.Key) (session.Record, error) {
	if err := s.err(); err != nil {
		return session.Record{}, err
	}
	return s.Store.Load(ctx, key)
}

func (s *brokenStore) Create(ctx context.Context, key session.Key, rec session.Record) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Create(ctx, key, rec)
}

func (s *brokenStore) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	if err := s.err(); err != nil {
		return session.Record{}, err
	}
	return s.Store.End(ctx, key, reason, c)
}

func (s *brokenStore) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.EndTagged(ctx, tag, reason, sc)
}

func (s *brokenStore) Mark(ctx context.Context, tag session.Tag, m session.Mark) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Mark(ctx, tag, m)
}

func (s *brokenStore) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Tagged(ctx, tag, after, limit)
}

func (s *brokenStore) Once(ctx context.Context, key session.Key, until time.Time) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Once(ctx, key, until)
}

// logbook collects logs.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logged tells whether one log line is of an event and level and has the rest.
func (g *gateway) logged(event, level string, rest ...string) bool {
	for line := range strings.Lines(g.logs.String()) {
		has := func(s string) bool { return strings.Contains(line, s) }
		missing := slices.ContainsFunc(rest, func(s string) bool { return !has(s) })
		if has(`"event":"`+event+`"`) && has(`"level":"`+level+`"`) && !missing {
			return true
		}
	}
	return false
}
