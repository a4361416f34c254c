package main

import (
	"crypto/tls"
	"log/slog"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
	"sessiongate/session/boltstore"
	"sessiongate/session/redisstore"
)

// openStore opens the store that the configuration names. A Redis need not be
// there: the gateway starts without it, and is not ready.
func (s *server) openStore(cfg *config.Config) (session.Store, error) {
	if cfg.Session.Store.Redis != nil {
		return s.openRedis(cfg)
	}
	return s.openBolt(cfg)
}

func (s *server) openBolt(cfg *config.Config) (session.Store, error) {
	store, err := boltstore.Open(string(cfg.Session.Store.Bbolt.Path), boltstore.Options{Log: s.log, Registerer: s.metrics.registry})
	if err != nil {
		return nil, err // not store: a nil *Store is a session.Store that is none
	}
	return store, nil
}

// openRedis has each new connection of the store ask for what is in force by then:
// passwords and CAs change at a reload.
func (s *server) openRedis(first *config.Config) (session.Store, error) {
	inForce := func() *config.Redis {
		if e := s.current.Load(); e != nil {
			return e.cfg.Session.Store.Redis
		}
		return first.Session.Store.Redis
	}
	store, err := redisstore.Open(redisOptions(inForce, s.log))
	if err != nil {
		return nil, err
	}
	return store, nil
}

// redisOptions are those of a configuration, whose secrets may be another's later.
func redisOptions(inForce func() *config.Redis, log *slog.Logger) redisstore.Options {
	r := inForce()
	o := redisstore.Options{
		Addresses: r.Addresses, Cluster: r.Cluster, DB: r.DB, Prefix: r.Prefix,
		Credentials: func() (username, password string, err error) {
			r := inForce()
			return r.Username.Reveal(), r.Password.Reveal(), nil
		},
		InsecurePlaintext: r.InsecurePlaintext,
		Liveness:          r.Liveness, Grace: r.Grace, WaitReplicas: r.WaitReplicas, Log: log,
	}
	if r.TLS != nil {
		o.TLS = func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: inForce().TLS.Pool}, nil
		}
	}
	if r.Sentinel.Master != "" {
		o.Sentinel.Master = r.Sentinel.Master
		o.Sentinel.Credentials = func() (username, password string, err error) {
			s := inForce().Sentinel
			return s.Username.Reveal(), s.Password.Reveal(), nil
		}
	}
	return o
}
