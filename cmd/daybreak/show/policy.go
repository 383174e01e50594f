package show

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// policies adds what people said of a pool's day: how many run when, who gets them, when they are made anew, and what
// happens to those that nobody uses. What is left out has its default.
func (p *page) policies(spec *v1.PoolSpec) {
	p.line("Schedule", scheduleWord(spec))
	p.line("Claims", claimsWord(spec.GetClaims()))
	p.line("Refresh", refreshWord(spec))
	p.line("Idle", idlePolicyWord(spec.GetIdle()))
}

func scheduleWord(spec *v1.PoolSpec) string {
	s := spec.GetSchedule()
	if s == nil {
		return "all seats, always"
	}
	parts := []string{"open " + cmp.Or(s.GetOpen(), "100%"), "closed " + cmp.Or(s.GetClosed(), "0")}
	for _, span := range s.GetSpans() {
		parts = append(parts, strings.TrimSpace(days(span.GetDays())+" "+span.GetFrom()+"-"+span.GetTo()+" "+span.GetTarget()))
	}
	spares := "spares while open " + cmp.Or(s.GetSpareBuffer(), "learned")
	if n := spec.GetMinReady(); n > 0 {
		spares += fmt.Sprintf(", and never fewer than %d", n)
	}
	return strings.Join(append(parts, spares), "; ")
}

func claimsWord(c *v1.ClaimPolicy) string {
	parts := []string{"floating: any ready desktop"}
	if c.GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED {
		parts[0] = "dedicated: the first claim binds user and desktop for ever"
	}
	if n := c.GetMaxPerUser(); n > 0 {
		parts = append(parts, fmt.Sprintf("for users who hold fewer than %d of all pools", n))
	}
	if n := c.GetMaxQueued(); n > 0 {
		parts = append(parts, fmt.Sprintf("at most %d wait", n))
	}
	return strings.Join(parts, "; ")
}

func refreshWord(spec *v1.PoolSpec) string {
	switch mode := spec.GetRefresh().GetMode(); {
	case mode == v1.RefreshMode_REFRESH_MODE_AFTER_DAYS:
		return "when a life is " + Span(time.Duration(spec.GetRefresh().GetDays())*24*time.Hour) + " old"
	case mode == v1.RefreshMode_REFRESH_MODE_NEVER,
		mode == v1.RefreshMode_REFRESH_MODE_UNSPECIFIED && spec.GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED:
		return "never, but for another version"
	}
	return "at logoff"
}

func idlePolicyWord(policy *v1.IdlePolicy) string {
	if policy.GetOpen() == nil && policy.GetClosed() == nil {
		return "" // nothing ever happens
	}
	parts := []string{"open: " + idleRuleWord(policy.GetOpen()), "closed: " + idleRuleWord(policy.GetClosed())}
	if users := policy.GetKeepUsers(); len(users) > 0 {
		parts = append(parts, "not those of "+strings.Join(users, ", "))
	}
	if desktops := policy.GetKeepDesktops(); len(desktops) > 0 {
		parts = append(parts, "not "+strings.Join(desktops, ", "))
	}
	return strings.Join(parts, "; ")
}

func idleRuleWord(rule *v1.IdleRule) string {
	if rule == nil {
		return "left alone"
	}
	after := rule.GetAfter().AsDuration()
	return fmt.Sprintf("%s after %s, warned %s ahead", strings.ToLower(strings.ReplaceAll(word(rule.GetAction()), "_", " ")),
		Span(after), Span(durationOr(rule.GetGrace(), min(5*time.Minute, after))))
}
