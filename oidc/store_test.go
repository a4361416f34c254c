package oidc_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"sessiongate/session"
)

// brokenStore is a store that can stop answering.
type brokenStore struct {
	session.Store
	mu   sync.Mutex
	down bool
}

var errDown = errors.New("store: disk on fire")

func (s *brokenStore) fail() { s.mu.Lock(); s.down = true; s.mu.Unlock() }
func (s *brokenStore) fix()  { s.mu.Lock(); s.down = false; s.mu.Unlock() }

func (s *brokenStore) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
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
