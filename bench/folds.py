"One Kang fold for the benches: cells to train on, controls to start from, and a score against the real ones."
from pertnb.board import fit_pcs
from pertnb.data import *
from pertnb.metrics import metrics

def kang_fold(held_out='cells', names=('r','J50','E')):
    "Training cells and control cells; and `score(P)`, a dict, for predicted cells. `held_out`: 'cells', a fifth of them, or a cell type"
    cells = PertData(kang18(), **studies['kang18'][1])
    test = split_cells(cells, seed=0) if held_out=='cells' else split_cell_type(cells, held_out)
    train = cells[~test].to_genes(choose_genes(cells[~test]))
    controls = cells[cells.is_control & (test if held_out=='cells' else cells.cell_type==held_out)].to_genes(train.genes)
    real, (mean, axes) = cells[test & ~cells.is_control].to_genes(train.genes).x.toarray(), fit_pcs(train.to_adata())
    project = lambda o: (o-mean)@axes
    control = controls.x.toarray()

    def score(predicted):
        sets = dict(genes=(dense(predicted), real, control))
        sets['pcs'] = tuple(map(project, sets['genes']))
        return {m: float(metrics[m](*sets[metrics[m].space])) for m in names}
    return train, controls, score
