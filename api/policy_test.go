package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "daybreak/proto/daybreak/v1"
)

func TestCheckPolicy(t *testing.T) {
	night := func(zone string) *v1.Window { return &v1.Window{From: "22:00", To: "05:00", TimeZone: zone} }
	waves := func(desktops uint32, waves ...string) *v1.PoolSpec {
		return &v1.PoolSpec{Desktops: desktops, Rollout: &v1.RolloutPolicy{Waves: waves}}
	}
	window := func(calendar string, w *v1.Window) *v1.PoolSpec {
		return &v1.PoolSpec{Desktops: 5, Calendar: calendar, Rollout: &v1.RolloutPolicy{Window: w}}
	}
	inUse := func(to string, policy *v1.InUse) *v1.PoolSpec {
		spec := window("office", &v1.Window{From: "23:00", To: to})
		spec.Rollout.InUse = policy
		return spec
	}
	remind := v1.InUseMode_IN_USE_MODE_REMIND
	for name, test := range map[string]struct {
		spec  *v1.PoolSpec
		field string // of the mistake; "" for none
		word  string
	}{
		"no policy":                {&v1.PoolSpec{}, "", ""},
		"min_ready":                {&v1.PoolSpec{Desktops: 5, MinReady: 4}, "", ""},
		"min_ready too high":       {&v1.PoolSpec{Desktops: 5, MinReady: 5}, "spec.minReady", "not less than"},
		"min_ready of none":        {&v1.PoolSpec{MinReady: 1}, "spec.desktops", "is 0, and spec.minReady wants 1"},
		"waves":                    {waves(100, "1", "10%", "50%", "100%"), "", ""},
		"waves of few":             {waves(3, "1", "10%", "50%"), "", ""},
		"waves of one":             {waves(1, "1"), "", ""},
		"waves of none":            {waves(0, "1", "10%"), "", ""},
		"counts that fall":         {waves(100, "3", "2"), "spec.rollout.waves[1]", "not more than"},
		"percentages that stay":    {waves(100, "10%", "10%"), "spec.rollout.waves[1]", "not more than"},
		"percentages by digits":    {waves(100, "9%", "10%"), "", ""},
		"a mixture that falls":     {waves(20, "5", "10%"), "spec.rollout.waves[1]", "less than the 5"},
		"all at once":              {waves(100, "100%"), "spec.rollout.waves[0]", "whole pool"},
		"all at once, as a count":  {waves(7, "9"), "spec.rollout.waves[0]", "whole pool"},
		"more than all":            {waves(7, "1", "120%"), "spec.rollout.waves[1]", "percentage from"},
		"window":                   {window("", night("Asia/Tokyo")), "", ""},
		"window by calendar":       {window("office", night("")), "", ""},
		"window without zone":      {window("", night("")), "spec.rollout.window.timeZone", "is needed"},
		"window with two zones":    {window("office", night("Asia/Tokyo")), "spec.rollout.window.timeZone", "leave it out"},
		"window in a strange zone": {window("", night("Asia/Edo")), "spec.rollout.window.timeZone", "no time zone"},
		"window in a local zone":   {window("", night("Local")), "spec.rollout.window.timeZone", "no time zone"},
		"window of no length":      {window("office", &v1.Window{From: "22:00", To: "22:00"}), "spec.rollout.window.to", "also when it begins"},
		"notice within the window": {inUse("01:00", &v1.InUse{Mode: remind, Notice: durationpb.New(119 * time.Minute)}), "", ""},
		"notice as long as that":   {inUse("01:00", &v1.InUse{Mode: remind, Notice: durationpb.New(2 * time.Hour)}), "spec.rollout.inUse.notice", "open for 2h:"},
		"the notice by default":    {inUse("23:15", &v1.InUse{Mode: remind}), "spec.rollout.inUse.notice", "15m "},
		"notice of the deadline":   {inUse("23:10", &v1.InUse{Deadline: durationpb.New(time.Hour)}), "spec.rollout.inUse.notice", "15m "},
		"no notice is given":       {inUse("23:10", &v1.InUse{}), "", ""},
	} {
		got := checkPolicy(test.spec)
		switch {
		case test.field == "" && len(got) > 0:
			t.Errorf("%s: %v", name, got)
		case test.field != "" && (len(got) != 1 || got[0].field != test.field || !strings.Contains(got[0].text, test.word)):
			t.Errorf("%s: %v, want one mistake in %s with %q", name, got, test.field, test.word)
		}
	}
}
