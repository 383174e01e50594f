package api

import (
	"time"

	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// checkSchedule finds what the rules in the .proto cannot say of when how many desktops run. before is nil for a new pool.
func checkSchedule(spec, before *v1.PoolSpec, now time.Time) []mistake {
	var mistakes []mistake
	for _, m := range demand.Check(spec, before, now) {
		mistakes = append(mistakes, mistake{m.Field, m.Reason})
	}
	return mistakes
}
