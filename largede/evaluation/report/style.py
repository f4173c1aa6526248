"""The report's style sheet: light and dark, wide and narrow, and nothing fetched from anywhere."""

# ruff: noqa: E501

STYLE = """
:root{--ground:#f7f7f4;--card:#fff;--ink:#1b1d22;--soft:#646a75;--rule:#e2e2dc;--grid:#ecece6;
--dense:#2763d8;--bm25:#c9730a;--fused:#0c8f74;--other:#8a6fb3;--equal:#8b919b;--mark:#e3f4ee;--published:#f4f1e6;--shadow:0 1px 2px #0000000d,0 6px 20px #0000000a}
@media(prefers-color-scheme:dark){:root{--ground:#121417;--card:#1b1e23;--ink:#eceef1;--soft:#9ba3af;--rule:#2e333b;
--grid:#282c33;--dense:#76a5ff;--bm25:#f2a94b;--fused:#45cfae;--other:#bda4e6;--equal:#8d95a1;--mark:#17352f;--published:#26241c;--shadow:none}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:48px 24px 72px}
h1,h2,h3,.card .name,.lead{overflow-wrap:anywhere}
h1{font-size:clamp(1.7rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 10px}
h2{font-size:1.45rem;letter-spacing:-.01em;margin:64px 0 4px}
h3{font-size:1rem;margin:0 0 2px}
p{margin:0 0 14px}
.eyebrow{font-size:.78rem;font-weight:650;letter-spacing:.09em;text-transform:uppercase;color:var(--soft);margin:0 0 10px}
.lead{font-size:1.13rem;max-width:46em;margin-bottom:28px}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(172px,1fr));gap:16px}
.card,figure{background:var(--card);border:1px solid var(--rule);border-radius:14px;box-shadow:var(--shadow)}
.card{padding:16px 18px;border-top:4px solid var(--tone,var(--rule))}
.card .big{font-size:2.2rem;font-weight:680;letter-spacing:-.03em;line-height:1.15;font-variant-numeric:tabular-nums}
.card .name{font-weight:650;color:var(--tone,inherit)}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr));gap:16px;margin-top:16px}
.pictures .square svg{max-width:430px;margin:0 auto}
.small .pictures{grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr))}
figure{margin:0;padding:16px 18px 14px;min-width:0;display:flex;flex-direction:column;gap:10px}
figcaption{margin-top:auto}
svg{width:100%;height:auto;display:block;overflow:visible}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:14px;box-shadow:var(--shadow);margin-top:16px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:11px 18px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
tr:last-child>*{border-bottom:0}
th:first-child{text-align:left}
thead th{font-size:.82rem;color:var(--soft);font-weight:600}
td b{font-weight:650}
td .range{display:block;color:var(--soft);font-size:.78rem;line-height:1.35}
tr.first-difference>*{border-top:2px solid var(--rule)}
.swatch{display:inline-block;width:.7em;height:.7em;border-radius:50%;background:var(--tone,var(--equal));margin-right:.55em}
.dense{--tone:var(--dense)}.bm25{--tone:var(--bm25)}.fused{--tone:var(--fused)}.other{--tone:var(--other)}.equal{--tone:var(--equal)}
th.published[colspan]{text-align:left}
table.wide th,table.wide td{padding:8px 12px}
table.wide th:first-child{position:sticky;left:0;background:var(--card);z-index:1}
td.published,th.published{background:var(--published);color:var(--soft);font-style:italic}
th .range{display:block;color:var(--soft);font-size:.78rem;font-weight:400;line-height:1.35}
tbody.averages>*>*{border-top:2px solid var(--rule);font-weight:600}
tbody+tbody tr:first-child>*{border-top:1px solid var(--rule)}
tbody.averages th .range{white-space:normal;min-width:12em}
tbody.group label{cursor:pointer}
tbody.group input{margin:0 .5em 0 0;vertical-align:-1px;accent-color:var(--dense)}
tbody.group:not(:has(input:checked)) tr.part{display:none}
.fit{display:inline-block;max-width:15em;white-space:normal;overflow-wrap:break-word}
tbody th:first-child{white-space:normal}
.whole{white-space:nowrap}
th.ours{text-align:left}
tr.part th{padding-left:30px;font-weight:400}
@media(min-width:1400px){.bleed .scroll{width:max-content;min-width:100%;max-width:min(96vw,1900px);position:relative;left:50%;transform:translateX(-50%)}}
.notes{margin-top:12px}.after{margin-top:20px}
.verdict{font-size:.76rem;font-weight:600;border-radius:99px;padding:1px 9px;display:inline-block;white-space:nowrap;margin-top:3px;border:1px solid var(--rule);color:var(--soft)}
.verdict.above{color:var(--fused);border-color:var(--fused)}.verdict.below{color:var(--bm25);border-color:var(--bm25)}
text{font-family:inherit;fill:var(--ink);font-size:13px}
text.tick{fill:var(--soft);font-size:12px}
text.row{font-size:12px}
text.name{font-size:13.5px;font-weight:600}
.dense-text{fill:var(--dense)}.bm25-text{fill:var(--bm25)}
.grid{stroke:var(--grid);stroke-width:1}
.zero{stroke:var(--soft);stroke-width:1}
.error{stroke:var(--ink);stroke-width:1.2}
.leader{fill:none;stroke:var(--grid);stroke-width:1.2}
.hill{fill:var(--tone);fill-opacity:.28;stroke:var(--tone);stroke-width:1.3}
.median{stroke:var(--tone);stroke-width:2.2}
.published{--tone:var(--soft)}
.trace.published{stroke:var(--soft);stroke-dasharray:5 4;stroke-width:1.6}
.diagonal{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 4}
.whisker{stroke:var(--tone);stroke-width:4;stroke-linecap:round;opacity:.38}
.dot{fill:var(--tone);stroke:var(--card);stroke-width:2}
.bar{fill:var(--tone)}.bar.pale{fill-opacity:.62}
.disc{fill:var(--tone);fill-opacity:.78}
.trace{fill:none;stroke:var(--tone,var(--dense));stroke-width:2.4;stroke-linejoin:round}
.trace.faint{opacity:.28;stroke-width:1}
.score{display:flex;border-radius:99px;overflow:hidden;height:12px;gap:2px;margin:6px 0 10px}
.score span{background:var(--tone);min-width:2px}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;font-size:.92rem}
details{background:var(--card);border:1px solid var(--rule);border-radius:14px;box-shadow:var(--shadow);margin-top:12px}
summary{cursor:pointer;padding:14px 20px;font-weight:600;display:flex;gap:6px 16px;justify-content:space-between;align-items:baseline;flex-wrap:wrap;list-style:none}
summary::-webkit-details-marker{display:none}
summary .query{flex:1 1 18em;overflow-wrap:anywhere}
summary .query::before{content:"▸";color:var(--soft);margin-right:.6em;display:inline-block;transition:transform .15s}
details[open] .query::before{transform:rotate(90deg)}
summary .tag{font-size:.8rem;color:var(--tone);font-variant-numeric:tabular-nums}
details.part{padding-bottom:1px}
details.part>summary::before{content:"▸";color:var(--soft);transition:transform .15s}
details.part[open]>summary::before{transform:rotate(90deg)}
details.part>summary{justify-content:flex-start;overflow-wrap:anywhere}
details.part>*:not(summary){margin-left:16px;margin-right:16px;margin-bottom:16px}
.lists{display:grid;grid-template-columns:1fr 1fr;gap:0 28px;padding:2px 20px 18px}
.lists ol{display:grid;gap:4px;margin:6px 0 0;padding:0;list-style:none;counter-reset:place}
.lists li{counter-increment:place;position:relative;padding:8px 12px 8px 36px;border-radius:9px;font-size:.88rem;line-height:1.42;overflow-wrap:anywhere}
.lists li::before{content:counter(place);position:absolute;left:14px;color:var(--soft);font-variant-numeric:tabular-nums}
.lists li.relevant{background:var(--mark)}
.lists li.relevant::before{content:"✓";color:var(--fused);font-weight:700}
.lists li b{display:block}
.lists h3{color:var(--tone);font-size:.9rem;margin-top:6px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:8px 24px;background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:20px;margin:16px 0 0;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;min-width:0}
code{font:0.9em/1.5 ui-monospace,"SF Mono","DejaVu Sans Mono",monospace}
@media(max-width:720px){main{padding:28px 16px 48px}.lists{grid-template-columns:1fr}
th,td{padding:9px 7px;font-size:.9rem;white-space:normal}td{min-width:5em}table .swatch{display:none}.card .big{font-size:1.9rem}.verdict{padding:1px 6px;font-size:.7rem}dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}h2{margin-top:48px}
table.wide th,table.wide td{padding:6px 8px;white-space:nowrap}details.part>*:not(summary){margin-left:8px;margin-right:8px}}
@media print{@page{size:A4 landscape;margin:12mm}:root{--shadow:none}html{font-size:11px}body{background:#fff;font-size:11px}main{max-width:none;padding:0}
.scroll{overflow:visible;break-inside:auto}table.wide{font-size:7.5px}table.wide th,table.wide td{padding:2px 3px}table.wide thead th,table.wide .range{font-size:7px}table.wide .swatch,tbody.group input{display:none}
tr,figure,.card,details.example{break-inside:avoid}h2{break-after:avoid;margin-top:28px}
tbody.group:not(:has(input:checked)) tr.part{display:table-row}}
"""
