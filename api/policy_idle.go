package api

import (
	"fmt"
	"strings"

	"daybreak/orchestrator/pool"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// checkUse finds what the rules in the .proto cannot say of how users get desktops, keep them and lose them. name is the
// pool's.
func checkUse(name string, spec *v1.PoolSpec) []mistake {
	dedicated := spec.GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED
	var mistakes []mistake
	if spec.GetRefresh().GetMode() == v1.RefreshMode_REFRESH_MODE_NEVER && !dedicated {
		mistakes = append(mistakes, mistake{"spec.refresh.mode", "never is for dedicated pools (spec.claims.mode): " +
			"in a floating one every desktop would be its first user's for good"})
	}
	idle := spec.GetIdle()
	if idle == nil {
		return mistakes
	}
	if idle.GetOpen() == nil && idle.GetClosed() == nil {
		mistakes = append(mistakes, mistake{"spec.idle", "has neither open nor closed: leave it out if nothing is to be done about idle desktops"})
	}
	if idle.GetClosed() != nil && spec.GetCalendar() == "" {
		mistakes = append(mistakes, mistake{"spec.idle.closed", "the pool has no calendar, so that it is never closed: name one in spec.calendar, or write the rule under open"})
	}
	for field, rule := range map[string]*v1.IdleRule{"spec.idle.open": idle.GetOpen(), "spec.idle.closed": idle.GetClosed()} {
		mistakes = append(mistakes, checkIdleRule(field, rule, spec)...)
	}
	for i, desktop := range idle.GetKeepDesktops() {
		if !strings.HasPrefix(desktop, name+"-") {
			mistakes = append(mistakes, mistake{fmt.Sprintf("spec.idle.keepDesktops[%d]", i), fmt.Sprintf(
				"%q is no desktop of this pool: they are named %s-1, %s-2 and so on", desktop, name, name)})
		}
	}
	return mistakes
}

func checkIdleRule(field string, rule *v1.IdleRule, spec *v1.PoolSpec) []mistake {
	var mistakes []mistake
	if grace, after := rule.GetGrace().AsDuration(), rule.GetAfter().AsDuration(); grace > after {
		mistakes = append(mistakes, mistake{field + ".grace", fmt.Sprintf(
			"%s is longer than %s.after, %s: who is warned for longer than they were away is warned all day", rules.Duration(grace), field, rules.Duration(after))})
	}
	dedicated := spec.GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED
	lasts := pool.RefreshModeOf(spec) == v1.RefreshMode_REFRESH_MODE_NEVER && spec.GetShape().GetDataDiskGib() == 0
	switch action := rule.GetAction(); {
	case dedicated && action == v1.IdleAction_IDLE_ACTION_RELEASE:
		mistakes = append(mistakes, mistake{field + ".action", "release gives nothing back in a dedicated pool, whose desktops stay their users': " +
			"use suspend, or shut_down where what is to last lies on a data disk (spec.shape.dataDiskGib)"})
	case lasts && action == v1.IdleAction_IDLE_ACTION_SHUT_DOWN:
		mistakes = append(mistakes, mistake{field + ".action", "shut_down makes a desktop anew, with nothing of what was on it but its data disk; here desktops " +
			"last (spec.refresh.mode is never, the default of dedicated pools) and have none: use suspend, or give them one (spec.shape.dataDiskGib)"})
	}
	return mistakes
}
