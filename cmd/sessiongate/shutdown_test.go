package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

// hung is a store on a disk that does not answer any more.
type hung struct{ session.Store }

func (hung) Close() error { select {} }

// A disk that hangs makes a shutdown take shutdown_timeout and not longer, and its
// exit status tell.
func TestAShutdownDoesNotWaitForADiskThatHangs(t *testing.T) {
	t.Parallel()
	text := settings{delay: "100ms", routes: `- {path: /api/, upstream: "http://127.0.0.1:9"}`}.String()
	text = strings.NewReplacer("${TEST_SECRET}", "canary", "shutdown_timeout: 5s", "shutdown_timeout: 1s").Replace(text)
	c, err := config.Parse(filepath.Join(t.TempDir(), "config.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	whole := s.store
	defer whole.Close()
	s.store = hung{whole}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	err = s.run(ctx, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "the store does not close") {
		t.Errorf("run: error = %v, want one about the store", err)
	}
	if took := time.Since(begun); took < 1100*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %v, want shutdown_delay and shutdown_timeout, and a bit for a busy machine", took)
	}
}
