package boltstore

import (
	"os"

	"github.com/prometheus/client_golang/prometheus"
)

// register exports what operators should be woken by, or plan disks by.
func (s *Store) register(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sessiongate_store_file_bytes", Help: "Size of the store's file; -1: it cannot be told.",
		}, func() float64 {
			info, err := os.Stat(s.path)
			if err != nil {
				return -1
			}
			return float64(info.Size())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sessiongate_store_quarantined", Help: "1 if the last start set the store's file aside and began with an empty one.",
		}, func() float64 {
			if s.beganAnew {
				return 1
			}
			return 0
		}),
	)
}
