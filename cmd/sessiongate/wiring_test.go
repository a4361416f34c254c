package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session/redisstore"
)

// A switch that is not handed on does nothing, and nothing else would tell.
func TestEverySwitchIsHandedOn(t *testing.T) {
	t.Parallel()
	handsOn(t, proxyRoute, "ForwardAuthorization", "PreserveHost", "StreamKeepsAlive", "EndWithSession", "InsecureHTTP")
	handsOn(t, clientLogout, "EndSession", "IDTokenHint", "Revoke", "AllowMissingExp")
}

// handsOn turns on each switch of what is read, and looks for it in what is made
// of it. It has to find those that are named, and may find more.
func handsOn[From, To any](t *testing.T, make func(From) To, named ...string) {
	t.Helper()
	found := map[string]bool{}
	for i := range reflect.TypeFor[From]().NumField() {
		field := reflect.TypeFor[From]().Field(i)
		if field.Type.Kind() != reflect.Bool {
			continue
		}
		found[field.Name] = true
		var from From
		reflect.ValueOf(&from).Elem().Field(i).SetBool(true)
		if to := reflect.ValueOf(make(from)).FieldByName(field.Name); !to.IsValid() || !to.Bool() {
			t.Errorf("%T.%s is not handed on", from, field.Name)
		}
	}
	for _, name := range named {
		if !found[name] {
			t.Errorf("%s was not looked at", name)
		}
	}
}

func TestTheStoreIsOpenedAsConfigured(t *testing.T) {
	t.Parallel()
	inForce := &config.Redis{
		Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Username: "one", Password: canary, DB: 3, TLS: &config.RedisTLS{Pool: x509.NewCertPool()},
		Sentinel: config.Sentinel{Master: "shop", Username: "two", Password: canary + "2"}, Cluster: true,
		Prefix: "shop:", Liveness: 3 * time.Second, Grace: 4 * time.Second, WaitReplicas: 5, InsecurePlaintext: true,
	}
	first := *inForce
	log := slog.New(slog.DiscardHandler)
	got := redisOptions(func() *config.Redis { return inForce }, log)
	tlsOf, credentials, sentinels := got.TLS, got.Credentials, got.Sentinel.Credentials
	got.TLS, got.Credentials, got.Sentinel.Credentials = nil, nil, nil
	want := redisstore.Options{
		Addresses: first.Addresses, Cluster: true, Sentinel: redisstore.Sentinel{Master: "shop"}, DB: 3, Prefix: "shop:", InsecurePlaintext: true,
		Liveness: 3 * time.Second, Grace: 4 * time.Second, WaitReplicas: 5, Log: log,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("options = %+v, want %+v", got, want)
	}
	// Each connection asks for what is in force by then.
	for _, c := range []*config.Redis{&first, {Username: "three", Password: "3", TLS: &config.RedisTLS{}, Sentinel: config.Sentinel{Username: "four", Password: "4"}}} {
		inForce = c
		if name, word, err := credentials(); err != nil || name != c.Username.Reveal() || word != c.Password.Reveal() {
			t.Errorf("credentials of %s: %s, %v", c.Username.Reveal(), name, err)
		}
		if name, word, err := sentinels(); err != nil || name != c.Sentinel.Username.Reveal() || word != c.Sentinel.Password.Reveal() {
			t.Errorf("credentials of %s: %s, %v", c.Sentinel.Username.Reveal(), name, err)
		}
		if conf, err := tlsOf(); err != nil || conf.RootCAs != c.TLS.Pool || conf.InsecureSkipVerify || conf.MinVersion < tls.VersionTLS12 {
			t.Errorf("TLS: %+v, %v", conf, err)
		}
	}
	plain := redisOptions(func() *config.Redis { return &config.Redis{Addresses: first.Addresses} }, log)
	if plain.TLS != nil || plain.Sentinel.Credentials != nil {
		t.Error("without tls and Sentinels there are some")
	}
}
