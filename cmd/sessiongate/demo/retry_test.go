package demo

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
)

// Between the look for a free port and the use of it somebody can take it.
func TestAPortThatWasTakenMeanwhileIsNotTheEnd(t *testing.T) {
	tries := 0
	start := func(context.Context, []byte, string, func(string)) error {
		if tries++; tries == 1 {
			return fmt.Errorf("listen: %w", syscall.EADDRINUSE)
		}
		return nil
	}
	if err := Run(t.Context(), []string{"-listen", "127.0.0.1:0"}, io.Discard, io.Discard, start); err != nil || tries != 2 {
		t.Errorf("Run = %v after %d tries, want a second one", err, tries)
	}
}
