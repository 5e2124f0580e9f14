"""What nbdev's pages need before Quarto (or pandoc) makes HTML of them.

Named in settings.ini as `procs`, so this folder must be on the path: `PYTHONPATH=tools nbdev_docs`."""
import ast, html, json, os, re
import xml.etree.ElementTree as ET
from functools import lru_cache
from pathlib import Path
from execnb.nbio import mk_cell
from nbdev.config import get_config
from nbdev.process import Processor
from nbdev.showdoc import showdoc_nm

root = Path(__file__).resolve().parents[1]
open_lines = 20                                     # a longer definition shows its signature, and its source folded
results_first = *(f'evidence/{o}' for o in ('ablation','speed','studies','unseen')), 'help/compare' # pages whose code is folded, and whose tables say what is best
no_contest = ('ceiling', 'resampled', 'control', 'sham', 'seen') # rows that are references: never marked as the best
definition = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef

# --- Definitions: once each, in the order of the source

def is_private(name): return name.split('.')[-1].startswith('_')
def is_doc(cell): return getattr(cell, 'has_sd', False)
def is_source(cell): return cell.cell_type=='code' and 'Exported source' in cell.source
def body(source): return '\n'.join(o for o in source.split('\n') if not o.startswith('#|')).strip('\n')

def pieces(code):
    "A cell's code as (public names, code) in its order: helpers stay with the definition that they precede"
    lines, done, names = code.split('\n'), 0, []
    nodes = [(o, showdoc_nm(o)) for o in ast.parse(code).body if isinstance(o, definition)]
    public = [o for o in nodes if not is_private(o[1])]
    if not public: return [([], code)]
    res = [(name, node.end_lineno) for node,name in public]
    res[-1] = res[-1][0], len(lines)
    for name,end in res: names.append(([name], '\n'.join(lines[done:end]).strip('\n'))); done = end
    return names

def signature_of(code, name):
    "The lines of a definition up to the end of its docstring; of a class, up to its first method"
    node = next(o for o in ast.parse(code).body if isinstance(o, definition) and showdoc_nm(o)==name)
    first = min([node.lineno, *(o.lineno for o in node.decorator_list)])
    if isinstance(node, ast.ClassDef):
        methods = [o for o in node.body if isinstance(o, definition)]
        start = next((o for o in methods if o.name=='__init__'), None)
        end = (start.body[0].lineno-1 if start else min([o.lineno, *(d.lineno for d in o.decorator_list)])-1) if methods and (o := methods[0]) else node.end_lineno
    else: end = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno-1
    return '\n'.join(code.split('\n')[first-1:max(end, node.lineno)]).rstrip()

@lru_cache
def places(module):
    "Where a module's definitions stand in it: line by name"
    file = root/get_config()['lib_path'].name/f'{module}.py'
    return {showdoc_nm(o): o.lineno for o in ast.parse(file.read_text(encoding='utf-8')).body if isinstance(o, definition)} if file.exists() else {}

def source_url(module, name):
    cfg = get_config()
    if name in places(module): return f"{cfg['git_url']}/blob/{cfg['branch']}/{cfg['lib_path'].name}/{module}.py#L{places(module)[name]}"

def heading(name, url):
    link = f'[source]({url}){{.source-link aria-label="Source of {name}"}}' if url else ''
    return mk_cell(f'### {name}\n\n{link}'.strip(), 'markdown')

def code_cell(source, outputs=None, like=None):
    cell = mk_cell(source, 'code', outputs=outputs or [])
    cell.directives_ = getattr(like, 'directives_', {})
    if like is not None and 'metadata' in like: cell.metadata = like.metadata
    return cell

def shown(names, code, source, module):
    "One definition: its source, if that is short, else its signature, with the source folded"
    for name in names: yield heading(name, source_url(module, name))
    heads = '\n\n'.join(signature_of(code, o) for o in names)
    n, told = code.count('\n')+1, heads.count('\n')+1
    if n<=open_lines or told>.75*n: yield code_cell(code, like=source); return
    if names: yield code_cell(heads, like=source)
    what = ', '.join(names or [showdoc_nm(o) for o in ast.parse(code).body if isinstance(o, definition)] or ['these lines'])
    yield code_cell(f'#| code-fold: true\n#| code-summary: "Source of {what}"\n{code}', like=source)

def order_definitions(cells, module):
    "nbdev leaves doc of the last, source, docs of the others in reverse; here each definition's heading stands before it"
    res, i = [], 0
    while i<len(cells):
        run = [cells[i]]
        while (is_doc(run[-1]) or is_source(run[-1])) and i+len(run)<len(cells) and (is_doc(c := cells[i+len(run)]) or is_source(c)): run.append(c)
        i += len(run)
        sources = [o for o in run if is_source(o)]
        for c in sources:
            for names,code in pieces(body(c.source)): res += shown(names, code, c, module)
        told = {showdoc_nm(o) for c in sources for o in ast.parse(body(c.source)).body if isinstance(o, definition)} # `__len__` too, which stands with what follows it
        for c in run:
            if is_doc(c) and re.search(r'show_doc\(([\w.]+)', c.source)[1] not in told:
                for out in c.outputs:
                    if 'text/markdown' in out.get('data', {}): out['data']['text/markdown'] = mend(''.join(out['data']['text/markdown']))
            elif not is_doc(c) and not is_source(c): pass
            else: continue
            res.append(c)
    return res

def mend(md):
    "A signature as nbdev writes it: no links, no `NoneType`, no `<lambda>`, no docstring that is Python's own; its heading first, as for all others"
    md = re.sub(r'^---\s+\[source\]\(([^)\s]+)\)\{[^}]*\}\s+### (.*)$', r'### \2\n\n[source](\1){.source-link aria-label="Source of \2"}', md, flags=re.M)
    def code(m): return re.sub(r':NoneType=|:function=', '=', unlink(m[0])).replace('=<lambda>', '=…')
    return re.sub(r'```.*?```', code, md, flags=re.S).replace('*Call self as a function.*', '')

# --- Links

linked = re.compile(r'\[(`[^`]+`)\]\((https?://[^)\s]+)\)')
def unlink(text): return linked.sub(r'\1', text)

@lru_cache
def documented():
    "The names that have a heading on a page"
    names = set()
    for page in (root/'nbs').glob('[0-9]*.ipynb'):
        for c in json.loads(page.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            if c['cell_type']=='code' and re.match(r'#\| *exports?\b', source):
                names |= {showdoc_nm(o) for o in ast.parse(source).body if isinstance(o, definition)}
    return {o for o in names if not is_private(o)}

@lru_cache
def other_words():
    "Words that are names of functions and something else, too: a command, an argument"
    trees = {o.stem: ast.parse(o.read_text(encoding='utf-8')) for o in (root/get_config()['lib_path'].name).glob('*.py')}
    nodes = [o for tree in trees.values() for o in ast.walk(tree)]
    arguments = {a.arg for o in nodes if isinstance(o, ast.arguments) for a in [*o.args, *o.kwonlyargs]}
    commands = {o.name.strip('_').removesuffix('_command') for o in trees['cli'].body if isinstance(o, ast.FunctionDef) and o.decorator_list}
    return arguments | commands

def mend_links(text, page):
    "Links by name lead to a page of this site, wherever it stands; none in headings and code, none for a word that also means something else"
    cfg, up = get_config(), '../'*page.count('/')
    base = f"{cfg['doc_host']}{cfg['doc_baseurl']}/"
    def one(m):
        name, url = m[1].strip('`'), m[2]
        if not url.startswith(base): return m[0]
        bare = name.removesuffix('()')
        if bare not in documented() or (bare==name and bare in other_words()): return m[1]
        return f'[{m[1]}]({up}{url.removeprefix(base)})'
    text = text.replace('https://github.com/example/pertnb', cfg['git_url']) # as the notebooks have it
    text = re.sub(r'\[\[(`[^`]+`)\]\([^)\s]+\)\]', r'[\1]', text) # a link within a link's text
    parts = re.split(r'(```.*?```|^#+ .*$)', text, flags=re.S|re.M)
    return ''.join(unlink(o) if o.startswith(('```','#')) else linked.sub(one, o) for o in parts)

def mend_maths(text):
    "A thin space between `\\log` and the letter that it is taken of, which MathML leaves out"
    def one(m): return re.sub(r'\\(log|exp|max|min)\s+(?=[A-Za-z]|\\(?:theta|mu|sigma|alpha|rho|pi|hat|bar|mathcal|mathbb|mathrm)\b)', r'\\\1\\, ', m[0])
    parts = re.split(r'(```.*?```|`[^`\n]*`)', text, flags=re.S)
    return ''.join(o if o.startswith('`') else re.sub(r'\$\$.*?\$\$|\$[^$\n]+\$', one, o, flags=re.S) for o in parts)

def free_anchors(cells):
    "Links by name lead to `#name`: a chapter with a definition's name leaves that place to the definition"
    taken = {m[1].lower() for c in cells if c.cell_type=='markdown' and 'source-link' in c.source and (m := re.match(r'### (\S+)', c.source))}
    def one(m): return f'{m[0]} {{#about-{m[1].lower()}}}' if m[1].lower() in taken else m[0]
    for c in cells:
        if c.cell_type=='markdown' and 'source-link' not in c.source: c.source = re.sub(r'^#{2,4} (\w+)$', one, c.source, flags=re.M)

# --- Tables

number = re.compile(r'\s*[-+−]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\s*(%|±.*|\[.*|[*^v ]*)?\s*$')
nothing = re.compile(r'\s*(nan|none|<na>|nat)(\s*±\s*nan)?\s*$', re.I)
def words_in(element): return ''.join(element.itertext()).strip()
def value_of(text): return float(re.match(r'[-+]?[\d.]+(e[-+]?\d+)?', text.strip().replace(',', '').replace('−', '-'))[0])

@lru_cache
def better():
    from pertnb.metrics import metrics
    return {k: max if o.better=='high' else min for k,o in metrics.items()} | {k: min for k in ('seconds','times as long','peak_MB','peak MB','E relative')}

def ways(columns, asked):
    "Per column: is the largest or the smallest value the best one?"
    if 'none' in asked: return {}
    if (how := max if 'max' in asked else min if 'min' in asked else None): return {k: how for k in range(1 if 'first' in asked else len(columns))}
    return {k: better()[o] for k,o in enumerate(columns) if o in better()}

def mark_best(lines, columns, asked):
    """Which (row, column) are to be bold. A cell says how, where the names of its columns do not: `#| best`, then `min` or `max` (or `none`);
    `row`: in each row, `all`: in the whole column and not in each group of rows, `first`: in the first column only."""
    res, how = set(), max if 'max' in asked else min
    if 'row' in asked:
        places = [k for k,o in enumerate(columns) if not o.startswith(no_contest)]
        groups = [([(i, k) for k in places], how) for i in range(len(lines))]
    else:
        outer = [() if 'all' in asked else line[0][:-1] for line in lines]
        groups = [([(i, k) for i,line in enumerate(lines) if outer[i]==o and not (line[0] and line[0][-1].startswith(no_contest))], how)
                  for o in dict.fromkeys(outer) for k,how in ways(columns, asked).items()]
    for places,how in groups:
        found = {p: value_of(t) for p in places if number.match(t := lines[p[0]][1][p[1]])}
        if len(found)>1: res |= {p for p,v in found.items() if v==how(found.values())}
    return res

def rows_of(section, width):
    "Rows of a table as (names, values), names repeated where a cell spans several rows"
    res, open_ = [], {}
    for tr in section:
        names, values, k = [], [], 0
        for cell in tr:
            while open_.get(k, (0,))[0]>0: names.append(open_[k][1]); open_[k] = open_[k][0]-1, open_[k][1]; k += 1
            if cell.tag=='th':
                names.append(words_in(cell)); open_[k] = int(cell.get('rowspan', 1))-1, words_in(cell); k += 1
            else: values.append(words_in(cell))
        res.append((tuple(names), values))
    return res

def mend_table(text, contest=False, asked=()):
    "A table of pandas or of ours as plain HTML: heads that say what they head, numbers to the right, nothing for NaN, the best in bold"
    table = ET.fromstring(text)
    head, rows = table.find('thead'), table.find('tbody')
    if head is None or rows is None: return text
    n_index = len([*head[-1]]) - max((len(o.findall('td')) for o in rows), default=0)
    if len(head)>1 and all(not words_in(o) for o in [*head[-1]][n_index:]) and any(words_in(o) for o in head[-1]):
        index = [o for o in head[-1] if words_in(o)] # heads of the index, on a line of their own
        head.remove(head[-1])
        blank = [*head[-1]][:len(index)]
        for old,new in zip(blank, index): old.text = words_in(new)
    lines = rows_of(rows, None)
    width = max((len(o[1]) for o in lines), default=0)
    columns = [words_in(o) for o in [*head[-1]][-width:]] if width else []
    bare = [re.sub(r' [↑↓]$', '', o) for o in columns]
    marked = mark_best(lines, bare, asked) if contest and 'none' not in asked else set()
    numeric = [all(number.match(v) or nothing.match(v) or v in ('', '–') for v in (o[1][k] for o in lines if k<len(o[1]))) for k in range(width)]
    def digits(text): return len(re.match(r'\s*[-+−]?[\d,]*\.?(\d*)$', text)[1]) if re.match(r'\s*[-+−]?[\d,]*\.\d+$', text) else 0
    longest = [max((digits(o[1][k]) for o in lines if k<len(o[1])), default=0) for k in range(width)]
    for i,tr in enumerate(rows):
        tr.attrib.clear()
        values = [o for o in tr if o.tag=='td']
        for th in tr.findall('th'): th.attrib = {**{k: v for k,v in th.attrib.items() if k=='rowspan'}, 'scope': 'rowgroup' if 'rowspan' in th.attrib else 'row'}
        for k,td in enumerate(values):
            if nothing.match(words_in(td)): td.text = '–'
            if 'bold' in td.attrib.pop('style', ''): marked.add((i,k)) # colours are the page's own, by day and by night
            if numeric[k]: td.set('class', ' '.join([*td.get('class', '').split(), 'num']))
            if 0<digits(shown_ := words_in(td))<longest[k]<5: td.text = shown_ + '0'*(longest[k]-digits(shown_)) # as pandas would, were the column not of text
            if (i,k) in marked: strong = ET.SubElement(td, 'strong'); strong.text, td.text = td.text, None
    for line in head:
        line.attrib.clear()
        for k,th in enumerate(line):
            if not words_in(th): th.tag = 'td'; th.attrib = {a: v for a,v in th.attrib.items() if a in ('colspan','rowspan')}
            else:
                th.set('scope', 'colgroup' if 'colspan' in th.attrib else 'col')
                if not th.get('colspan') and (j := k-(len(line)-width))>=0 and line is head[-1]:
                    if numeric[j]: th.set('class', 'num')
                    if contest and 'none' not in asked and bare[j]==columns[j] and columns[j] in better(): th.text = f"{columns[j]} {'↑' if better()[columns[j]] is max else '↓'}"
    table.attrib = {'class': 'table table-sm data', 'data-quarto-disable-processing': 'true'}
    return ET.tostring(table, encoding='unicode', method='html')

def mend_html(text, **kw):
    "An output in HTML as Markdown that holds it: then Quarto brings no jQuery and no RequireJS"
    text = re.sub(r'<style.*?</style>|<script.*?</script>|</?div[^>]*>', '', text, flags=re.S)
    def table(m): return f'<div class="table-scroll">{mend_table(entities(m[0]), **kw)}</div>'
    text = re.sub(r'<table.*?</table>', table, text, flags=re.S)
    return '```{=html}\n' + re.sub(r'\n\s*\n', '\n', text).strip() + '\n```\n'

def entities(text): return re.sub(r'&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-f]+);)', '&amp;', re.sub(r'&([a-zA-Z]+);', lambda m: m[0] if m[1] in ('amp','lt','gt','quot') else html.unescape(m[0]), text)).replace('<br>', '<br/>')

def mend_outputs(cell, contest):
    asked = (getattr(cell, 'directives_', None) or {}).get('best', [])
    kw = dict(contest=contest or bool(asked), asked=asked)
    for out in cell.get('outputs', []):
        data = out.get('data', {})
        if 'text/html' in data: out['data'] = {'text/markdown': mend_html(''.join(data['text/html']), **kw)}

# --- Pages

def alt_text(cell):
    "A figure without a text for those who do not see it gets its caption"
    if any('image/png' in o.get('data', {}) for o in cell.get('outputs', [])) and 'fig-alt' not in cell.source:
        if (caption := re.search(r'#\| fig-cap: "(.*)"', cell.source)): cell.source = f'#| fig-alt: "{caption[1]}"\n' + cell.source

def fold(cells):
    "Results first: code behind a word, and preparations together with the next code that shows something"
    res, waiting = [], ''
    for c in cells:
        res.append(c)
        if c.cell_type!='code' or re.search(r'#\| (echo|include): false|#\| code-fold: false', c.source): continue
        code, directives = body(c.source), [o for o in c.source.split('\n') if o.startswith('#|') and 'code-' not in o]
        if not c.outputs and 'assert ' not in code: waiting += code+'\n\n'; res.pop(); continue
        head = ['#| code-fold: true', f'#| code-summary: "{"Code" if c.outputs else "Check"}"', *directives]
        c.source, waiting = '\n'.join([*head, waiting+code]), ''
    return res

class site(Processor):
    "All of it, after nbdev's own processors"
    def begin(self):
        nb = self.nb
        page = str(Path(nb.path_).resolve().relative_to(root/'nbs')) if getattr(nb, 'path_', None) else ''
        contest = page.startswith(results_first)
        cells = [c for c in nb.cells if getattr(c, 'source', None) is not None and not c.source.startswith('<!-- readme -->')
                 and 'readme' not in (getattr(c, 'directives_', None) or {})]
        cells = order_definitions(cells, Path(page).stem.split('_', 1)[-1])
        for c in cells:
            if c.cell_type=='markdown': c.source = mend_maths(mend_links(c.source.removeprefix('<!-- site -->').lstrip('\n'), page))
            if c.cell_type!='code': continue
            for o in c.get('outputs', []):
                if 'text/markdown' in o.get('data', {}): o['data']['text/markdown'] = mend_links(''.join(o['data']['text/markdown']), page)
            mend_outputs(c, contest); alt_text(c)
        free_anchors(cells)
        nb.cells[:] = fold(cells) if contest else cells
