package warmup_test

import (
	"testing"

	"daybreak/orchestrator/warmup"
)

// 2,000 desktops on 60 hosts.
func BenchmarkPlan(b *testing.B) {
	in := site(60, 8, 34, 2000)
	now := at("06:00:00")
	for b.Loop() {
		warmup.Plan(now, in)
	}
}
