"""The look of a report: paper by day, embers by night; nothing is fetched."""

STYLE = """
:root{color-scheme:light dark;--ink:#1d2330;--soft:#666b78;--paper:#fbfaf7;--card:#fff;
--edge:#e4e0d8;--good:#1a7340;--bad:#b3261e;--c0:#c4572e;--c1:#1f6f9f;--c2:#5d7a1f;--c3:#8a4fa3;
--c4:#a27900;--c5:#4d5566}
@media(prefers-color-scheme:dark){:root{--ink:#e8e4da;--soft:#a3a19a;--paper:#16181d;--card:#1d2027;
--edge:#333845;--good:#6cc48b;--bad:#ff8a7a;--c0:#f0875c;--c1:#6db6e0;--c2:#a9c766;--c3:#cf9be3;
--c4:#e3bf55;--c5:#aab2c4}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:2rem 1.2rem 4rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.9rem;font-weight:650;letter-spacing:-.02em;margin:.2rem 0 1rem}
h2{font-size:1.2rem;font-weight:600;margin:2.6rem 0 .8rem;padding-top:.8rem;
border-top:1px solid var(--edge)}
p{max-width:46rem}a{color:var(--c1)}small,caption,.soft{color:var(--soft)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:0}
dl div,figure,article,pre{background:var(--card);border:1px solid var(--edge);border-radius:8px}
dl div{padding:.6rem .9rem}dt{color:var(--soft);font-size:.82rem}
dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
dl.few{grid-template-columns:repeat(auto-fit,minmax(9.5rem,16rem))}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:.9rem}
figure{margin:0;padding:.8rem .9rem .5rem;min-width:0}figcaption{font-weight:600;font-size:.95rem}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1rem;list-style:none;margin:.15rem 0 .3rem;padding:0;
font-size:.82rem;color:var(--soft)}.key b{color:var(--ink);font-variant-numeric:tabular-nums}
.swatch{width:24px;height:8px;margin-right:.35rem}.chart{width:100%;height:auto;display:block}
.chart text{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
.grid{stroke:var(--edge);fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.faint{stroke-width:1;opacity:.28}.area{stroke:none;opacity:.82}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1);stroke-dasharray:7 3}
.c2{stroke:var(--c2);stroke-dasharray:2 3}.c3{stroke:var(--c3);stroke-dasharray:9 3 2 3}
.c4{stroke:var(--c4);stroke-dasharray:4 2}.c5{stroke:var(--c5);stroke-dasharray:1 2}
.faint{stroke-dasharray:none}.area.c0{fill:var(--c0)}.area.c1{fill:var(--c1)}
.area.c2{fill:var(--c2)}.area.c3{fill:var(--c3)}.area.c4{fill:var(--c4)}.area.c5{fill:var(--c5)}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;width:100%;
font-variant-numeric:tabular-nums}caption{text-align:left;font-weight:600;padding-bottom:.3rem}
th,td{padding:.32rem .9rem .32rem 0;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--edge)}th:first-child{text-align:left;font-weight:500}
thead th{color:var(--soft);font-size:.82rem;font-weight:500}.mean th,.mean td{font-weight:650}
.better{color:var(--good)}.worse{color:var(--bad)}.bars{width:180px;height:22px;display:block}
.bars .old{stroke:var(--soft)}.bars circle.old{fill:var(--card)}.bars .new{stroke:var(--c0)}
.bars circle.new{fill:var(--c0)}article{padding:.8rem 1rem;margin:.8rem 0}
article h3{margin:0 0 .3rem;font-size:1rem}.parts{margin:.2rem 0;font-size:.88rem}
pre{overflow:auto;padding:.8rem 1rem;font-size:.84rem;line-height:1.45;white-space:pre-wrap;
overflow-wrap:anywhere}article pre{margin:.5rem 0 0;background:var(--paper)}
summary{cursor:pointer}.unseen{position:absolute;width:1px;height:1px;overflow:hidden;
clip-path:inset(50%)}@media print{body{max-width:none}figure,article{break-inside:avoid}}
"""
