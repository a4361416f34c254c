package boltstore

import (
	"testing"

	"sessiongate/session"
	"sessiongate/session/storetest"
)

func TestMigrate(t *testing.T) {
	storetest.RunMigrate(t, func(t *testing.T) (from, to session.Portable) { return open(t), open(t) })
}
