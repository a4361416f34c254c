package faults

import (
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// A gateway that is told to stop finishes the refreshes it has begun, also those
// that nobody waits for any more: the provider has rotated, and the next process
// must find the new token.
func TestShutdownDuringARefresh(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.NewBrowser()
	if _, err := ada.Login("ada"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(tokenTTL + 100*time.Millisecond)
	w.Provider.Fail(devprovider.Fault{After: true, Delay: time.Second, Times: 1}, devprovider.Refresh)
	if answer, err := ada.CallAndLeave(300 * time.Millisecond); err == nil {
		t.Fatalf("the refresh was too fast: %v", answer)
	}
	if n := w.Provider.Stats().Refreshed; n != 1 {
		t.Fatalf("%d refreshes were begun, want 1", n)
	}
	w.Gateway.Stop()

	w.Gateway.Start()
	time.Sleep(tokenTTL)
	wantCall(t, ada, valid)
	if reuses, resent := w.Provider.Stats().Reuses, w.Gateway.Events("refresh_ambiguous"); len(reuses) > 0 || resent > 0 {
		t.Errorf("the provider saw %d reuses, %d refresh tokens were sent again", len(reuses), resent)
	}
}
