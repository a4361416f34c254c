package boltstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsTellOfSizeAndQuarantine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	if err := os.WriteFile(path, make([]byte, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, quarantined := range []float64{1, 0} { // it is the start that counts
		registry := prometheus.NewRegistry()
		s, err := Open(path, Options{Registerer: registry})
		if err != nil {
			t.Fatal(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			got[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
		}
		if got["sessiongate_store_quarantined"] != quarantined || got["sessiongate_store_file_bytes"] != float64(fileSize(t, path)) {
			t.Errorf("metrics = %v, want %v and %d", got, quarantined, fileSize(t, path))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
