"""What somebody may have put into an event, a key, an error message or the name of a group."""

XSS = '<img src=x onerror="window.executed=1"><script>window.executed=1</script>'
ATTRIBUTE = '" autofocus onfocus="window.executed=1" x=\''
BREAKOUT = "</script></style></textarea></title><svg onload=window.executed=1>"
LINK = "javascript:window.executed=1"
TEMPLATE = "{{ 7|add:7 }}{% now 'Y' %}"
CHINESE = "订单已付款：两把椅子"
EMOJI = "👩🏽‍🚀🏳️‍🌈🎉"
RTL = "مرحبا \u202eright to left\u202c שלום"
LONG = "unbroken" * 40

STRINGS = (XSS, ATTRIBUTE, BREAKOUT, LINK, TEMPLATE, CHINESE, EMOJI, RTL, LONG)
