package main

import (
	"reflect"
	"testing"
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
